"""A host with a kernel of its own: User Mode Linux with systemd and cgroup v2, for what namespaces cannot show.

The same interface as BareHost wherever both can do it. Fork is slow inside (10 ms): no start latency is measured here.
"""

from __future__ import annotations

import shlex
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
from tests.fleet.disk import write_host_key
from tests.fleet.own_kernel.linux import linux
from tests.fleet.own_kernel.root_image import root_image
from tests.fleet.ssh_client import ssh_command
from tests.machine.process import Server
from tests.machine.waiting import eventually

if TYPE_CHECKING:
    from tests.fleet.bridge import Bridge

JOIN = Path(__file__).with_name("join.py")


class KernelHost(OnACable):
    """Made by `Bridge.kernel_host`. Log in at `address`, port 22, as root with the bridge's `key_file`."""

    port = 22
    user = "root"

    def __init__(self, bridge: Bridge, name: str, number: int, *, memory_mb: int, cpus: int) -> None:
        self.bridge = bridge
        self.name = name
        self.key_file = bridge.key_file
        self.address = str(bridge.address_of(number))
        self.group = f"{bridge.group}/{name}"
        self.folder = bridge.folder / name
        self.cable = Cable(bridge.hub_pid, number, self.folder.with_suffix(".cable.log"))
        self._memory_mb = memory_mb
        self._cpus = cpus
        self._number = number
        self._linux: Server | None = None
        self._write_seed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # --- life

    def boot(self) -> None:
        """Until its sshd accepts connections: about 3 s. The disk is as it was left."""
        assert not self.running, f"{self.name} is running"
        self.power_on()
        self.wait_for_sshd()

    def power_on(self) -> None:
        """Without waiting, to boot several together."""
        cgroups.create(self.group)
        self.cable.plug_in_raw(f"u{self._number}")
        self._linux = Server(self._command(), log=self.folder / "console.log")

    def kill(self) -> None:
        """The power goes. What the guest had not written to its disk is lost; what it had is there."""
        self.cable.unplug()
        cgroups.destroy(self.group)
        if self._linux is not None:
            self._linux.kill()
            self._linux = None

    def shut_down(self, *, timeout_s: float = 60.0) -> None:
        """An orderly end."""
        assert self._linux is not None
        self.run("systemctl", "poweroff", check=False)
        self._linux.wait(timeout_s)
        self.kill()

    def reboot(self, *, timeout_s: float = 60.0) -> None:
        """An orderly one, until its sshd accepts connections again."""
        before = self.boot_id
        self.run("systemctl", "reboot", check=False)
        eventually(f"{self.name} has booted anew", lambda: self._boot_id_or_none() not in (None, before), timeout_s=timeout_s, every_s=0.2)

    def close(self) -> None:
        if self._linux is not None:
            self.kill()

    @property
    def running(self) -> bool:
        return self._linux is not None and self._linux.running

    @property
    def boot_id(self) -> str:
        return self.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()

    @property
    def machine_id(self) -> str:
        return self.run("cat", "/etc/machine-id").stdout.strip()

    # --- using it

    def run(
        self,
        *argv: str,
        input: str | None = None,  # noqa: A002 - the word of subprocess.run
        check: bool = True,
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """A command inside, by SSH. Raises AssertionError when it fails and `check`, subprocess.TimeoutExpired."""
        command = [*ssh_command(self.folder / "known_hosts", self.key_file, f"root@{self.address}"), shlex.join(argv)]
        done = subprocess.run(command, input=input or "", capture_output=True, text=True, timeout=timeout_s)
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}"
        return done

    @property
    def host_key(self) -> str:
        """Type and key, as in known_hosts."""
        return (self._seed / "ssh/ssh_host_ed25519_key.pub").read_text().strip()

    @property
    def known_hosts_line(self) -> str:
        return f"{self.address} {self.host_key}"

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")

    # --- what befalls it

    def freeze(self) -> None:
        """The whole machine stands still, its kernel too: not even connections are accepted."""
        cgroups.set_frozen(self.group, frozen=True)

    def thaw(self) -> None:
        """Its clocks jump to now."""
        cgroups.set_frozen(self.group, frozen=False)

    def wait_for_sshd(self, timeout_s: float = 60.0) -> None:
        def up() -> bool:
            assert self.running, f"{self.name} did not boot: {self.console()[-2000:]}"
            return self.listens()

        eventually(f"sshd of {self.name} listens", up, timeout_s=timeout_s)

    def listens(self) -> bool:
        with suppress(OSError), socket.create_connection((self.address, self.port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    # --- how

    def _boot_id_or_none(self) -> str | None:
        try:
            return self.boot_id
        except (AssertionError, subprocess.TimeoutExpired):
            return None

    @property
    def _seed(self) -> Path:
        return self.folder / "seed"

    def _write_seed(self) -> None:
        """What bench-setup takes inside: the guest sees this folder of the machine, and no other."""
        self._seed.mkdir(parents=True)
        write_host_key(self._seed)
        (self._seed / "authorized_keys").write_text(self.bridge.authorized_key)
        prefix, gateway = self.bridge.network.prefixlen, self.bridge.address
        (self._seed / "settings").write_text(f"name={self.name}\naddress={self.address}/{prefix}\ngateway={gateway}\n")
        (self.folder / "known_hosts").write_text(self.known_hosts_line + "\n")

    def _command(self) -> Sequence[str | Path]:
        # At its own depth of 64 the card may take as many frames at once as NAPI allows, after which it takes none any more.
        card = f"vec0:transport=raw,ifname=u{self._number},mac={self.cable.card},depth=32"
        return [
            *("nsenter", f"--net=/proc/{self.bridge.hub_pid}/ns/net", "--"),
            *(sys.executable, "-I", "-S", JOIN, self.group),
            *(linux(), f"mem={self._memory_mb}M", f"ncpus={self._cpus}", "seccomp=auto"),
            *(f"umid=uml{self._number}", f"uml_dir={self.folder}/", f"hostfs={self._seed}"),
            *(f"ubd0={self.folder}/root.cow,{root_image()}", "root=/dev/ubda", "rw"),
            *(card, "con=null", "con0=null,fd:1", "ssl=null"),
        ]
