"""The host goes down: every container is stopped as its task says, while network and disks are still there.

What systemd would do by itself is a SIGTERM to all processes of a container at once, whatever its stop signal, and 90 s for those that
ignore it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from moorage_agent import systemd
from moorage_agent.task_state import DEFAULT_GRACE_S
from moorage_agent.world import TaskState, World

log = logging.getLogger("moorage.shutdown")

AFTER_GRACE_S = 15.0
LOOK_EVERY_S = 0.05


async def containers_ended(world: World, *, touch: Callable[[Iterable[str]], None]) -> None:
    """Stop all and start none. Returns when none runs, or the longest grace is long over."""
    world.host_stops = True
    alive = [state for state in world.tasks.values() if _runs(state)]
    if not alive or world.document is None:  # without a document nothing is done to containers
        return
    limit = max(map(_grace_s, alive)) + AFTER_GRACE_S
    log.info("the host goes down", extra={"fields": {"containers": len(alive), "limit_s": limit}})
    systemd.notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((limit + AFTER_GRACE_S) * 1e6)}")
    touch([state.uid for state in alive])
    for _ in range(int(limit / LOOK_EVERY_S)):
        if not any(map(_runs, world.tasks.values())):
            return
        await asyncio.sleep(LOOK_EVERY_S)
    log.warning("containers still run", extra={"fields": {"tasks": " ".join(s.uid for s in world.tasks.values() if _runs(s))}})


def _runs(state: TaskState) -> bool:
    return state.busy or (state.seen is not None and state.seen.exit is None)


def _grace_s(state: TaskState) -> float:
    return state.spec.container.stop_grace_s if state.spec else DEFAULT_GRACE_S
