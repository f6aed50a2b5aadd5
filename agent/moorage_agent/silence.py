"""Looks at paths of the host that may never answer: whoever asks a network file system whose server is gone waits in the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

from moorage_agent.errors import AgentError

T = TypeVar("T")
PATIENCE_S = 5.0

_first: dict[str, Future[None]] = {}  # looks nobody knows yet to hang; done when it is known
_silent: set[str] = set()  # what did not answer in time and is still being looked at


async def look_at(
    paths: str, work: Callable[[], T], *, too_late: Callable[[T], object] = lambda _: None, within_s: float = PATIENCE_S
) -> T:
    """What `work` returns or raises; it looks at `paths`, in a thread of its own: the shared ones are few, and the process ends without it.

    Raises AgentError when it takes longer than `within_s`, and at once while an earlier look at the same paths still hangs. Whoever comes
    during a look waits for its end first, so that a dead path holds one thread. `too_late` is then given what comes after all.
    """
    if paths in _silent or (paths in _first and not await _is_known(_first[paths], within_s)) or paths in _silent:
        raise _silence(paths)
    outcome, known = Future[T](), Future[None]()
    outcome.set_running_or_notify_cancel()
    known.set_running_or_notify_cancel()
    outcome.add_done_callback(lambda _: _tell(paths, known))
    _first.setdefault(paths, known)
    try:
        threading.Thread(target=_work, args=(outcome, work), name="look", daemon=True).start()
    except RuntimeError as error:
        _tell(paths, known)
        raise AgentError("NoThread", f"cannot look at {paths}: {error}; the host is short of processes or memory") from error
    answer = asyncio.wrap_future(outcome)
    try:
        await asyncio.wait([answer], timeout=within_s)
    finally:
        if answer.cancel():
            _silent.add(paths)
            _tell(paths, known)
            outcome.add_done_callback(lambda done: _heard(paths, done, too_late))
    if answer.cancelled():
        raise _silence(paths)
    return answer.result()


async def _is_known(first: Future[None], within_s: float) -> bool:
    known = asyncio.wrap_future(first)
    try:
        await asyncio.wait([known], timeout=within_s)
    finally:
        known.cancel()
    return first.done()


def _tell(paths: str, known: Future[None]) -> None:
    """The loop and the look's thread may both say it."""
    with contextlib.suppress(InvalidStateError):
        known.set_result(None)
    if _first.get(paths) is known:
        _first.pop(paths, None)


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
