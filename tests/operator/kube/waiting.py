"""Waiting for the real world: sockets and servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WAIT_S = 20.0


async def until(condition: Callable[[], object]) -> None:
    """TimeoutError when it never comes true."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
