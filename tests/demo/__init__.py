"""`make demo`: the whole path on one machine, with real parts, in a few minutes."""
