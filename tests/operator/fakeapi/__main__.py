"""The fake in a process of its own, filled: `python -m tests.operator.fakeapi NODES TASKS_PER_NODE`.

Prints its address and serves until its input ends.

A line `change N` on its input makes N changes of Task statuses, as fast as it can, and prints `done`.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import cycle, islice

from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import TASKS

from tests.operator.fakeapi import FakeApi


async def serve(nodes: int, tasks_per_node: int) -> None:
    fake = FakeApi()
    for number in range(nodes * tasks_per_node):
        fake.store.create(TASKS, task(number, node=f"node-{number % nodes:04}"))
    await fake.start()
    print(fake.url, flush=True)
    keys = cycle(list(fake.store.of(TASKS).objects))
    changes = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        changes += 1
        for key in islice(keys, int(line.split()[1])):
            change(fake, key, changes)
        print("done", flush=True)
    await fake.stop()


def change(fake: FakeApi, key: Key, number: int) -> None:
    status = {"state": "Running", "restarts": number, "conditions": [{"type": "Ready", "status": "True", "reason": "Running"}]}
    fake.store.update(TASKS, key, lambda old: {**old, "status": status}, part="status", manager="moorage")


def task(number: int, *, node: str) -> Obj:
    """About 2 KB, as a real one."""
    env = [{"name": f"VARIABLE_{index}", "value": f"value-{number}-{index}" * 2} for index in range(12)]
    container = {
        "image": f"registry.example/app@sha256:{number:064x}",
        "args": ["serve", "--port", "8080"],
        "env": env,
        "memoryBytes": 268435456,
    }
    metadata = {
        "namespace": "default",
        "name": f"web-{number}-x7k2",
        "labels": {"moorage.dev/service": f"web-{number % 500}", "moorage.dev/node": node},
        "finalizers": ["moorage.dev/task"],
    }
    spec = {
        "service": f"web-{number % 500}",
        "slot": str(number),
        "attempt": 1,
        "nodeName": node,
        "desiredState": "Running",
        "container": container,
    }
    return {"metadata": metadata, "spec": spec}


asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
