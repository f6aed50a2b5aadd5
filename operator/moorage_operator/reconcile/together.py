"""Writes that do not depend on each other, made at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from moorage_operator.errors import Conflict


async def together(writes: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Makes all of them, whichever fails, then raises the first failure.

    A Conflict is none: the object is another by now, and the change that made it so brings the next look.
    """
    for result in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, Conflict):
            raise result
