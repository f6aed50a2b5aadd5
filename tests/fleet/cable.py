"""The cable between a bare host and its bridge, and what can be wrong with it."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

from tests.fleet import links
from tests.fleet.wire import Conditions
from tests.machine.process import Server

WIRE = Path(__file__).with_name("wire.py")


class Cable:
    """One per host, plugged in anew at each boot. The bridge's end is in the network namespace of process `hub`."""

    def __init__(self, hub: int, number: int, log: Path) -> None:
        self._hub = hub
        self._number = number
        self._log = log
        self._plugged = 0
        self._wire: Server | None = None

    @property
    def link(self) -> str:
        """The name of the bridge's end. New at each boot: the old one vanishes with the host's network namespace, a little later."""
        return f"v{self._number}.{self._plugged}"

    def plug_in(self, host: int, address: str, gateway: str) -> None:
        """`host` is a process in its network namespace, `address` has its prefix length."""
        self._plugged += 1
        # The address of a network card outlives reboots: neighbours would go on speaking to the old one for a while.
        card = f"02:00:00:00:00:{self._number:02x}"
        links.configure(
            f"link add {self.link} type veth peer name eth0 address {card} netns {host}\n"
            f"link set {self.link} addrgenmode none master br0 up",
            within=self._hub,
        )
        links.configure(f"link set lo up\naddress add {address} dev eth0\nlink set eth0 up\nroute add default via {gateway}", within=host)

    def unplug(self) -> None:
        self.remove_wire()
        self.cut()

    def cut(self) -> None:
        links.configure(f"link set {self.link} down", within=self._hub)

    def heal(self) -> None:
        """As good as new, whatever was wrong."""
        self.remove_wire()
        links.configure(f"link set {self.link} up", within=self._hub)

    def spoil(self, conditions: Conditions) -> None:
        """Frames pass through a process that delays and loses them, from now until `heal`."""
        self.remove_wire()
        near, far = f"w{self._number}", f"x{self._number}"
        links.configure(
            f"link add {near} type veth peer name {far}\nlink set {far} addrgenmode none up\n"
            f"link set {near} addrgenmode none master br0 up\nlink set {self.link} nomaster",
            within=self._hub,
        )
        options = json.dumps(dataclasses.asdict(conditions))
        command: list[str | Path] = [*links.entering(self._hub), sys.executable, "-I", "-S", WIRE, self.link, far, options]
        self._wire = Server(command, log=self._log)
        time.sleep(0.1)
        assert self._wire.running, f"the spoilt cable of {self.link} ended: {self._wire.log()[-500:]}"

    def remove_wire(self) -> None:
        if self._wire is not None:
            self._wire.kill()
            self._wire = None
            links.configure(f"link delete w{self._number}\nlink set {self.link} master br0", within=self._hub)
