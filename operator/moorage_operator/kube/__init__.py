"""The way to the API server, over plain dicts and for any kind: client, caches, queues, status, events, the Lease. Knows no planner."""
