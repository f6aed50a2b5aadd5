"""The network of one run: a bridge in a network namespace of its own, which bare hosts hang on, and one address of this machine's in it."""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncssh

from tests.fleet import cgroups, links
from tests.fleet.bare_host import BareHost
from tests.fleet.own_kernel.kernel_host import KernelHost
from tests.fleet.spec import HostSpec
from tests.machine import MissingOnMachine, cache_dir
from tests.machine.scratch import scratch_folder
from tests.machine.waiting import eventually

PLAIN = HostSpec()
HUB = Path(__file__).with_name("hub.py")


class Bridge:
    """`address` is this machine's: API server and registry listen there, and the operator reaches every host from it.

    Hosts see each other and `address`, and nothing beyond. The bridge is not in this machine's namespace, so its firewall (Docker's,
    say) does not filter it, and it is gone when the hub process is, whichever way this process ends. `key_file` opens every host.
    """

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise MissingOnMachine("bare hosts are made of namespaces, which takes root")
        self.id = f"{os.getpid():x}{secrets.token_hex(2)}"
        self.folder = scratch_folder("fleet", parent=cache_dir() / "runs")
        self._link = f"mb{self.id}"  # at most 15 characters
        self.group = f"moorage-bench-{self.id}"
        self.key_file, self.authorized_key = make_user_key(self.folder)
        self._hub = start_hub(self.group, self.folder)
        self.network = self._connect()
        self.address = str(self.network[1])
        self._numbers = itertools.count(1)
        self.hosts: list[BareHost | KernelHost] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @property
    def hub_pid(self) -> int:
        """The process in whose network namespace the bridge (`br0`) and the hosts' ends of their links are."""
        return self._hub.pid

    def host(self, name: str | None = None, spec: HostSpec = PLAIN, *, boot: bool = True) -> BareHost:
        """A new host, running unless told otherwise. Its name is unique on this bridge; it is closed with the bridge at the latest."""
        number = next(self._numbers)
        host = BareHost(self, name or f"host{number}", number, spec)
        self.hosts.append(host)
        if boot:
            host.boot()
        return host

    def kernel_host(self, name: str | None = None, *, memory_mb: int = 512, cpus: int = 2, boot: bool = True) -> KernelHost:
        """A new host with a kernel of its own. Its kernel and disk are made on first use; raises MissingOnMachine where they cannot be."""
        number = next(self._numbers)
        host = KernelHost(self, name or f"host{number}", number, memory_mb=memory_mb, cpus=cpus)
        self.hosts.append(host)
        if boot:
            host.boot()
        return host

    def address_of(self, number: int) -> IPv4Address:
        return self.network[10 + number]

    def close(self) -> None:
        """End all hosts and remove every trace: processes, links, control groups, folders."""
        for host in self.hosts:
            host.close()
        assert self._hub.stdin is not None
        self._hub.stdin.close()
        self._hub.wait(60)
        eventually("the bridge is gone", lambda: not Path("/sys/class/net", self._link).exists())

    def _connect(self) -> IPv4Network:
        outer, inner = self._link, "up0"
        network = unused_network()
        links.configure("link add br0 type bridge\nlink set br0 addrgenmode none up\nlink set lo up", within=self.hub_pid)
        links.configure(
            f"link add {outer} type veth peer name {inner} netns {self.hub_pid}\n"
            f"address add {network[1]}/{network.prefixlen} dev {outer}\nlink set {outer} up"
        )
        links.configure(f"link set {inner} addrgenmode none master br0 up", within=self.hub_pid)
        return network


def start_hub(group: str, folder: Path) -> subprocess.Popen[str]:
    command: Sequence[str | Path] = ["unshare", "--net", sys.executable, "-I", "-S", HUB, group, folder]
    log = folder / "hub.log"
    with log.open("w") as errors:
        hub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
    assert hub.stdout is not None
    with hub.stdout as output:
        assert output.readline() == "ready\n", f"the process a bridge lives in did not start: {log.read_text()}"
    cgroups.create(group)
    return hub


def make_user_key(folder: Path) -> tuple[Path, str]:
    key = asyncssh.generate_private_key("ssh-ed25519", comment="bench")
    path = folder / "id_ed25519"
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())
    return path, key.export_public_key().decode()


def unused_network() -> IPv4Network:
    """A /24 of 10/8 that no route of this machine touches."""
    routes = [IPv4Network(route["dst"], strict=False) for route in links.show("route") if route["dst"] != "default"]
    while True:
        network = IPv4Network(f"10.{128 + secrets.randbelow(120)}.{secrets.randbelow(256)}.0/24")
        if not any(network.overlaps(route) for route in routes):
            return network
