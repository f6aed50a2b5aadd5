"""The fake API server in a process of its own, holding a swarm at rest: `python -m tests.operator.scale.apiserver NODES SERVICES REPLICAS`.

Prints its address and serves until its input ends. To each line of input it answers with the calls counted so far, as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys

from moorage_operator.kube.resource import NAMESPACES

from tests.operator.fakeapi import FakeApi
from tests.operator.scale.population import Population, Size


async def serve(size: Size) -> None:
    fake = FakeApi(bookmark_s=10.0)
    fake.store.create(NAMESPACES, {"metadata": {"name": "moorage-system"}})
    Population(fake.store, size).fill()
    gc.freeze()
    await fake.start()
    print(fake.url, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({" ".join(call): count for call, count in fake.calls.items()}), flush=True)
    await fake.stop()


asyncio.run(serve(Size(*map(int, sys.argv[1:4]))))
