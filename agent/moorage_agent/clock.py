"""The one place that reads clocks."""

from __future__ import annotations

import time
from collections.abc import Callable

from moorage_agent.paths import Paths
from moorage_agent.task_state import Moment


def clock_of(paths: Paths) -> Callable[[], Moment]:
    """A clock of this boot."""
    boot_id = paths.boot_id()

    def now() -> Moment:
        return Moment(wall=time.time(), boot=time.clock_gettime(time.CLOCK_BOOTTIME), boot_id=boot_id)

    return now
