"""Looks at paths of the host that may never answer: whoever asks a network file system whose server is gone waits in the kernel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from moorage_agent.errors import AgentError

T = TypeVar("T")
PATIENCE_S = 5.0

_silent: set[str] = set()  # what did not answer in time and is still being looked at


async def look_at(
    paths: str, work: Callable[[], T], *, too_late: Callable[[T], object] = lambda _: None, within_s: float = PATIENCE_S
) -> T:
    """What `work` returns or raises; it looks at `paths`, in a thread of its own: the shared ones are few, and the process ends without it.

    Raises AgentError when it takes longer than `within_s`, and at once while an earlier look at the same paths still hangs, so that at most
    one thread does. `too_late` is then given what comes after all.
    """
    if paths in _silent:
        raise _silence(paths)
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()
    threading.Thread(target=_work, args=(outcome, work), name="look", daemon=True).start()
    answer = asyncio.wrap_future(outcome)
    try:
        await asyncio.wait([answer], timeout=within_s)
    finally:
        if answer.cancel():
            _silent.add(paths)
            outcome.add_done_callback(lambda done: _heard(paths, done, too_late))
    if answer.cancelled():
        raise _silence(paths)
    return answer.result()


def _work(outcome: Future[T], work: Callable[[], T]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # it is the asker's
        outcome.set_exception(error)


def _heard(paths: str, outcome: Future[T], too_late: Callable[[T], object]) -> None:
    _silent.discard(paths)
    if outcome.exception() is None:
        too_late(outcome.result())


def _silence(paths: str) -> AgentError:
    return AgentError(
        "BindSourceSilent", f"bind source {paths} does not answer: its network file system seems to be gone; bring it back, or unmount it"
    )
