"""A bare host: namespaces with an init, an sshd and a disk of their own. What a plain Linux machine is, and what befalls one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.fleet import cgroups
from tests.fleet.cable import Cable, OnACable
from tests.fleet.disk import HostDisk, make_disk, write_host_key
from tests.fleet.spec import HostSpec
from tests.fleet.traces import Process, Traces, process_of, traces_of
from tests.machine.process import Server
from tests.machine.waiting import eventually

if TYPE_CHECKING:
    from tests.fleet.bridge import Bridge

INIT, ENTER = Path(__file__).with_name("init.py"), Path(__file__).with_name("enter.py")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


class BareHost(OnACable):
    """Made by `Bridge.host`. Log in at `address`, port 22, as root (or `spec.user`) with the bridge's `key_file`."""

    port = 22

    def __init__(self, bridge: Bridge, name: str, number: int, spec: HostSpec) -> None:
        self.bridge = bridge
        self.name = name
        self.spec = spec
        self.user = spec.user or "root"
        self.key_file = bridge.key_file
        self.address = str(bridge.address_of(number))
        self.group = f"{bridge.group}/{name}"
        self.disk: HostDisk = make_disk(bridge.folder / name, spec, name=name, group=self.group, authorized_key=bridge.authorized_key)
        self.cable = Cable(bridge.hub_pid, number, self.disk.folder / "cable.log")
        self.pid: int | None = None
        self._init: Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # --- life

    def boot(self) -> None:
        """Until its sshd accepts connections. Each boot has its own boot id and an empty /run; the disk is as it was left."""
        assert self.pid is None, f"{self.name} is running"
        self.disk.new_boot()
        cgroups.create(self.group)
        self.pid = self._start_init()
        self.cable.plug_in(self.pid, f"{self.address}/{self.bridge.network.prefixlen}", self.bridge.address)
        self.wait_for_sshd()

    def kill(self) -> None:
        """As if the power went: every process ends at once. What was written to the disk is there, synced or not."""
        self.cable.unplug()
        cgroups.destroy(self.group)
        if self._init is not None:
            self._init.kill()
        self.pid = self._init = None

    def reboot(self, *, grace_s: float = 2.0) -> None:
        """SIGTERM to everything, `grace_s` to end in, then the end of all and a new boot. `kill` and `boot` are the crash."""
        for process in self.processes():
            if process.pid != self.pid:
                cgroups.signal_process(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):  # a real machine does not wait longer either
            eventually("all processes end", lambda: len(self.processes()) <= 1, timeout_s=grace_s)
        self.kill()
        self.boot()

    def close(self) -> None:
        if self.pid is not None:
            self.kill()

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def boot_id(self) -> str:
        return self.disk.boot_id

    @property
    def machine_id(self) -> str:
        return self.disk.machine_id

    # --- using it

    def run(
        self,
        *argv: str,
        input: str | None = None,  # noqa: A002 - the word of subprocess.run
        check: bool = True,
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """A command inside as root, not by SSH: it works when the network does not. Raises AssertionError when it fails and `check`."""
        done = subprocess.run(self.entering(argv), input=input, capture_output=True, text=True, timeout=timeout_s, env=ENVIRONMENT)
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}"
        return done

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside, for a subprocess of one's own. The environment is the caller's."""
        return [sys.executable, "-I", "-S", str(ENTER), self.group, str(self._pid()), *argv]

    def path(self, inside: str) -> Path:
        """Where this machine sees a path of the running host. Absolute symbolic links inside lead astray."""
        return Path(f"/proc/{self._pid()}/root{inside}")

    @property
    def host_key(self) -> str:
        """Type and key, as in known_hosts."""
        return (self.disk.etc / "ssh/ssh_host_ed25519_key.pub").read_text().strip()

    @property
    def known_hosts_line(self) -> str:
        return f"{self.address} {self.host_key}"

    def processes(self) -> list[Process]:
        """All of them, containers' included, by this machine's process ids."""
        return [found for pid in sorted(cgroups.processes(self.group)) if (found := process_of(pid)) is not None]

    def traces(self) -> Traces:
        """What can be left behind on a host: take it before and after, and compare."""
        return traces_of(self.group, self._pid())

    # --- what befalls it

    def freeze(self) -> None:
        """Nothing on it runs, its kernel still answers: pings and new connections succeed, and nobody speaks."""
        cgroups.set_frozen(self.group, frozen=True)

    def thaw(self) -> None:
        cgroups.set_frozen(self.group, frozen=False)

    def stop_sshd(self, *, sessions: bool = True) -> None:
        """The port is closed. With `sessions`, open connections end too."""
        servers = [process for process in self.processes() if process.name == "sshd"]
        for process in servers:
            if sessions or "[listener]" in process.command:
                cgroups.signal_process(process.pid, signal.SIGKILL)
        eventually("the port is closed", lambda: not self.listens())

    def start_sshd(self) -> None:
        self.run("/usr/sbin/sshd")
        self.wait_for_sshd()

    def restart_sshd(self) -> None:
        self.stop_sshd()
        self.start_sshd()

    def change_host_key(self) -> None:
        """The host was installed anew, or somebody stands in between: sshd answers with another key from now on."""
        write_host_key(self.path("/etc") if self.running else self.disk.etc)
        if self.running:
            self.restart_sshd()

    def fill_disk(self, *, leave_bytes: int = 0) -> None:
        """No space on /var/lib/moorage (only of a host with `disk_mb`: the others share this machine's)."""
        assert self.spec.disk_mb is not None, f"{self.name} shares the machine's disk: boot it with disk_mb"
        filler = self.path("/var/lib/moorage/.filler")
        with open(filler, "ab") as file, suppress(OSError):  # ENOSPC, in the end
            while (free := free_bytes(filler.parent) - leave_bytes) > 0 or leave_bytes == 0:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, max(4096, free))

    def free_disk(self) -> None:
        self.path("/var/lib/moorage/.filler").unlink(missing_ok=True)

    # --- how

    def _pid(self) -> int:
        assert self.pid is not None, f"{self.name} is not running"
        return self.pid

    def _start_init(self) -> int:
        log, ready = self.disk.folder / "console.log", self.disk.folder / "ready"
        ready.unlink(missing_ok=True)
        namespaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        command = ["unshare", *namespaces, sys.executable, "-I", "-S", str(INIT), str(self.disk.config), str(ready)]
        self._init = init = Server(command, log=log, env=ENVIRONMENT)

        def up() -> int | None:
            assert init.running, f"{self.name} did not boot: {log.read_text()[-2000:]}"
            line = ready.read_text() if ready.exists() else ""
            return int(line) if line.endswith("\n") else None

        return eventually(f"{self.name} boots", up, timeout_s=30, every_s=0.005)

    def wait_for_sshd(self, timeout_s: float = 20.0) -> None:
        eventually(f"sshd of {self.name} listens", self.listens, timeout_s=timeout_s, every_s=0.01)

    def listens(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
