"""When an operator was last heard: tasks with onDisconnect.stopAfter live by it.

A new session alone proves nothing: its operator may have placed such a task elsewhere meanwhile. Only with its first document does the
silence end. The time outlives the daemon, not the boot: after a reboot nobody was heard yet.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable

from moorage_agent.paths import Paths
from moorage_agent.state import replace_file
from moorage_agent.task_state import Moment
from moorage_agent.world import World

log = logging.getLogger("moorage.contact")

WRITE_EVERY_S = 2.0


class Contact:
    """`again` is given the tasks to look at when a silence ends."""

    def __init__(self, world: World, paths: Paths, *, clock: Callable[[], Moment], again: Callable[[Iterable[str]], None]) -> None:
        self._world, self._clock, self._again = world, clock, again
        self._path = f"{paths.run}/heard"
        self._trusted = False
        self._written = 0.0
        self._failing = False

    def recall(self) -> None:
        """Take up what an earlier daemon of this boot knew."""
        with contextlib.suppress(OSError, ValueError), open(self._path, encoding="ascii") as file:
            boot_id, boot = file.read().split()
            if boot_id == self._clock().boot_id:
                self._world.heard_at = float(boot)

    def begin(self) -> None:
        """A session began; it has sent no document yet."""
        self._trusted = False

    def document(self) -> None:
        self._trusted = True
        self.heard()
        self._again(self._world.fenced())

    def heard(self) -> None:
        if not self._trusted:
            return
        now = self._clock()
        self._world.heard_at = now.boot
        if now.boot - self._written >= WRITE_EVERY_S and self._world.fenced():
            self._written = now.boot
            self._write(now)

    def _write(self, now: Moment) -> None:
        """What counts is the time in memory: without the file a daemon that comes later takes the silence for longer than it was."""
        try:
            replace_file(self._path, f"{now.boot_id} {now.boot}\n".encode())
        except OSError as error:
            if not self._failing:
                log.warning("when an operator was last heard cannot be written", extra={"fields": {"error": str(error)}})
            self._failing = True
        else:
            self._failing = False
