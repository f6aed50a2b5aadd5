"""Hears of exits at once, and testifies when nobody else can.

Two ways lead here: a supervisor's datagram after it recorded an end, and our own descriptor of the container's first process. Where the
second speaks and no record follows, the supervisors are gone: the kernel (6.15) still tells the exit code to whoever holds such a
descriptor, and we write the record. Without that the code stays unknown; it is never invented.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

from moorage_agent.paths import Paths
from moorage_agent.runtime import record, supervisor
from moorage_agent.runtime.observed import SUPERVISOR_LOST, ContainerState, is_unburied, observe_one

LOOKS_S = (0.05, 0.25)  # the socket holds 10 datagrams (net.unix.max_dgram_qlen) and more containers may end at once
PATIENCE_S = 1.0  # for a supervisor to write, or the zygote to send another one


class Witness:
    """`told`: the last run of each container whose end was passed on. All of it belongs to one event loop."""

    def __init__(self, paths: Paths, boot_id: str) -> None:
        self._paths, self._boot_id = paths, boot_id
        self._pidfds: dict[tuple[str, int], int] = {}
        self._told: dict[str, int] = {}
        self._exits: asyncio.Queue[ContainerState] | None = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self) -> None:
        """Safe to repeat; needs a running event loop."""
        if self._socket is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._exits = asyncio.Queue()
        path = f"{self._paths.run}/exits.sock"
        supervisor.remove_file(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._loop.add_reader(self._socket.fileno(), self._hear)

    async def next_exit(self) -> ContainerState:
        self.listen()
        assert self._exits is not None
        return await self._exits.get()

    def watch(self, uid: str, run: int, pid: int) -> None:
        """Keep a descriptor of the process, if it still is there."""
        if self._loop is None or (uid, run) in self._pidfds:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.doubt(uid, run)
            return
        self._pidfds[uid, run] = pidfd
        self._loop.add_reader(pidfd, self._process_ended, uid, run)

    def doubt(self, uid: str, run: int) -> None:
        """This run has no process and no recorded end: look again soon."""
        if self._loop is not None and self._told.get(uid) != run:
            self._loop.call_later(PATIENCE_S, self._settle, uid, run)

    def forget(self, uid: str) -> None:
        self._told.pop(uid, None)
        for key in [key for key in self._pidfds if key[0] == uid]:
            self._drop(*key)

    def close(self) -> None:
        if self._loop is None or self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for key in list(self._pidfds):
            self._drop(*key)
        supervisor.remove_file(f"{self._paths.run}/exits.sock")
        self._socket = self._loop = None

    def _hear(self) -> None:
        assert self._socket is not None
        while True:
            try:
                uid = self._socket.recv(64).decode(errors="replace")
            except BlockingIOError:
                return
            if len(uid) == 36:
                self._tell(uid)

    def _tell(self, uid: str) -> None:
        state = observe_one(self._paths, uid, self._boot_id)
        if state is None or state.exit is None or self._told.get(uid, 0) >= state.run:
            return
        self._told[uid] = state.run
        self._drop(uid, state.run)
        assert self._exits is not None
        self._exits.put_nowait(state)

    def _process_ended(self, uid: str, run: int) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._pidfds[uid, run])
        for after_s in LOOKS_S:
            self._loop.call_later(after_s, self._look, uid, run)
        self._loop.call_later(PATIENCE_S, self._settle, uid, run)

    def _look(self, uid: str, run: int) -> None:
        if self._loop is not None and self._told.get(uid) != run:
            self._tell(uid)

    def _settle(self, uid: str, run: int) -> None:
        """Pass on what is recorded by now; record it ourselves if nobody is left to."""
        if self._loop is None or self._told.get(uid) == run:
            return
        state = observe_one(self._paths, uid, self._boot_id)
        if state is None or state.run != run or state.pid is not None:
            return
        if state.exit is None:
            if supervisor.is_supervised(self._paths.task_run(uid)) or is_unburied(self._paths, uid):
                self._loop.call_later(PATIENCE_S, self._settle, uid, run)
                return
            self._testify(state)
        self._tell(uid)

    def _testify(self, state: ContainerState) -> None:
        pidfd = self._pidfds.get((state.uid, state.run))
        status = supervisor.status_of_pidfd(pidfd) if pidfd is not None else None
        records = record.open_records(self._paths.task(state.uid))
        fields = {
            "run": state.run,
            "boot": self._boot_id,
            "started": int((state.started_at or 0.0) * 1e9),
            "ended": time.time_ns(),
            "code": None if status is None else supervisor.exit_code(status),
            "reason": SUPERVISOR_LOST if status is None else None,
        }
        record.write_record(records, fields, sync=True)
        os.close(records)

    def _drop(self, uid: str, run: int) -> None:
        pidfd = self._pidfds.pop((uid, run), None)
        if pidfd is not None:
            if self._loop is not None:
                self._loop.remove_reader(pidfd)
            os.close(pidfd)
