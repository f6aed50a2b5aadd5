"""Real containers: root and Linux are needed, and Debian's busybox-static (downloaded once)."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from moorage_agent.runtime.runtime import Runtime

from tests.machine import MissingOnMachine
from tests.machine.waiting import eventually
from tests.root.runtime.host import Container, Host


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """One zygote serves all tests; at the end nothing of it may be left."""
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    try:
        made = Host()
    except MissingOnMachine as missing:
        pytest.skip(str(missing))
    yield made
    asyncio.run(_end(made))
    shutil.rmtree(made.folder)


async def _end(host: Host) -> None:
    runtime = host.runtime()
    await runtime.remove_orphans([])
    await runtime.stop_zygote()
    runtime.close()
    eventually("the zygote ends", lambda: not host.processes(), timeout_s=10)


@pytest_asyncio.fixture
async def runtime(host: Host) -> AsyncIterator[Runtime]:
    made = host.runtime()
    await made.ensure_zygote()
    yield made
    await made.remove_orphans([])
    made.close()


Make = Callable[..., Container]
Run = Callable[..., Awaitable[Container]]


@pytest.fixture
def make(host: Host, runtime: Runtime) -> Make:
    """A container that is not started yet."""

    def _make(*argv: str, **fields: Any) -> Container:
        return Container(host, runtime, argv=argv, **fields)

    return _make


@pytest.fixture
def run(make: Make) -> Run:
    """Run a shell line to its end."""

    async def _run(line: str, **fields: Any) -> Container:
        container = make("/bin/sh", "-c", line, **fields)
        await container.start()
        await container.ended()
        return container

    return _run
