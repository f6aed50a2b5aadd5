"""The cable between a bare host and its bridge, and what can be wrong with it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from tests.fleet import links
from tests.fleet.wire import Conditions
from tests.machine.process import Server
from tests.machine.waiting import eventually

OFFLOAD = Path(__file__).parent / "own_kernel/offload.py"
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

    @property
    def card(self) -> str:
        """The address of the host's network card. It outlives reboots: neighbours would go on speaking to the old one for a while."""
        return f"02:00:00:00:00:{self._number:02x}"

    def plug_in_raw(self, peer: str) -> None:
        """For a host that is a process: its end is the link `peer` beside the bridge, for a raw socket."""
        self._plugged += 1
        links.configure(
            f"link add {self.link} type veth peer name {peer}\nlink set {peer} addrgenmode none up\n"
            f"link set {self.link} addrgenmode none master br0 up",
            within=self._hub,
        )
        for name in (self.link, peer):
            subprocess.run([*links.entering(self._hub), sys.executable, "-I", "-S", OFFLOAD, name], check=True)

    def plug_in(self, host: int, address: str, gateway: str) -> None:
        """`host` is a process in its network namespace, `address` has its prefix length."""
        self._plugged += 1
        links.configure(
            f"link add {self.link} type veth peer name eth0 address {self.card} netns {host}\n"
            f"link set {self.link} addrgenmode none master br0 up",
            within=self._hub,
        )
        links.configure(f"link set lo up\naddress add {address} dev eth0\nlink set eth0 up\nroute add default via {gateway}", within=host)

    def unplug(self) -> None:
        """Both ends are gone, if the host has not removed its own already."""
        self.remove_wire()
        links.configure(f"link delete {self.link}", within=self._hub, check=False)

    def cut(self) -> None:
        links.configure(f"link set {self.link} down", within=self._hub)

    def heal(self) -> None:
        """As good as new, whatever was wrong."""
        self.remove_wire()
        links.configure(f"link set {self.link} up", within=self._hub)

    def spoil(self, conditions: Conditions) -> None:
        """Frames pass through a process that delays, slows and loses them, from now until `heal`."""
        self.remove_wire()
        near, far = f"w{self._number}", f"x{self._number}"
        links.configure(
            f"link add {near} type veth peer name {far}\nlink set {far} addrgenmode none up\n"
            f"link set {near} addrgenmode none master br0 up\nlink set {self.link} nomaster",
            within=self._hub,
        )
        options = json.dumps(dataclasses.asdict(conditions))
        command: list[str | Path] = [*links.entering(self._hub), sys.executable, "-I", "-S", WIRE, self.link, far, options]
        self._log.unlink(missing_ok=True)
        self._wire = wire = Server(command, log=self._log)

        def carries() -> bool:
            assert wire.running, f"the spoilt cable of {self.link} ended: {wire.log()[-500:]}"
            return "ready" in wire.log()

        eventually("the spoilt cable carries", carries)

    def remove_wire(self) -> None:
        if self._wire is not None:
            self._wire.kill()
            self._wire = None
            links.configure(f"link delete w{self._number}\nlink set {self.link} master br0", within=self._hub)


class OnACable:
    """What befalls a host through its cable."""

    cable: Cable

    def cut(self) -> None:
        """The cable is out: nothing arrives, nobody is told."""
        self.cable.cut()

    def slow(self, delay_ms: float, *, loss: float = 0.0, rate: float | None = None) -> None:
        """Each frame takes `delay_ms` longer in each direction, and is lost with probability `loss`; `rate` is in bytes per second."""
        self.cable.spoil(Conditions(delay_ms / 1000, loss, loss, rate))

    def one_way(self, *, mute: bool = True) -> None:
        """`mute`: the host hears and nobody hears it. Otherwise it is deaf: what it says arrives, nothing reaches it."""
        self.cable.spoil(Conditions(loss_out=1.0) if mute else Conditions(loss_in=1.0))

    def heal(self) -> None:
        """The cable is as good as new."""
        self.cable.heal()
