"""What the agent knows of one task: its record (kept on disk) and its view (the record beside what is observed now). Values only."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Optional

from moorage_agent.errors import InvalidTask
from moorage_agent.protocol import Exit, Healthcheck, ImageConfig, TaskSpec

REMOVED = "Removed"
REPLACED = "Replaced"
UNHEALTHY = "Unhealthy"
DISCONNECTED = "Disconnected"
HOST_REBOOTED = "HostRebooted"

DEFAULT_GRACE_S = 10.0


@dataclass(frozen=True)
class Moment:
    """`wall` for records and people; `boot` (CLOCK_BOOTTIME) for every delay, because clocks are set and hosts sleep."""

    wall: float
    boot: float
    boot_id: str


@dataclass(frozen=True)
class Stop:
    """The run is being stopped. `began` and `killed_at` are boot time of `boot_id`."""

    reason: str
    boot_id: str
    began: float
    killed_at: Optional[float] = None


@dataclass(frozen=True)
class End:
    """The task's last state: Complete, Failed or Rejected. Nothing follows but its removal."""

    state: str
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Record:
    """What must outlive the daemon and the boot. A run is one start of the container; runs above `noted` have no known end yet.

    `streak` counts exits and hindrances since the last stable run; `attempts` the exits the restart policy counts. `restart_at` is boot
    time of `boot_id`. `ready`: it was prepared once. `began`: a run of it reached its program. `healthy_run`: the newest run whose health
    check passed. `hindered`: the code of what may pass and kept the last try from its program; `message` tells it.
    """

    run: int = 0
    noted: int = 0
    restarts: int = 0
    streak: int = 0
    attempts: int = 0
    restart_at: float = 0.0
    boot_id: str = ""
    ready: bool = False
    began: bool = False
    healthy_run: int = 0
    exits: tuple[Exit, ...] = ()
    message: str = ""
    hindered: str = ""
    stop: Optional[Stop] = None
    end: Optional[End] = None


@dataclass(frozen=True)
class Seen:
    """One run as the runtime observes it: alive (`pid`), or ended (`exit`)."""

    run: int
    pid: Optional[int] = None
    started_at: Optional[float] = None
    exit: Optional[Exit] = None


@dataclass(frozen=True)
class ImageView:
    """state: Absent, Queued, Pulling, Ready or Failed. `retry_at` is boot time; None on a Failed image: no try will help."""

    state: str = "Absent"
    reason: str = ""
    message: str = ""
    retry_at: Optional[float] = None
    done: int = 0
    total: int = 0
    config: Optional[ImageConfig] = None


@dataclass(frozen=True)
class Trouble:
    """The last step of this task failed. `permanent`: the same step would fail again."""

    code: str
    message: str
    permanent: bool
    exit_code: int = 125  # docker's code for a failure of the runtime


@dataclass(frozen=True)
class TaskView:
    """All that decides about one task. `wanted`: the document holds it; `spec` None: a container whose task nobody remembers.

    `missing`: keys of values not here, with what the operator said about them, if it did. `heard_at`: boot time of the last word of an
    operator. `way_blocked`: a task still runs that this one replaces, or that replaced it. `heir_ready`: a task that replaces this one and
    may start waits for it. `host_stops`: the host goes down now.
    """

    uid: str
    wanted: bool
    spec: Optional[TaskSpec]
    record: Record = Record()
    seen: Optional[Seen] = None
    image: ImageView = ImageView()
    missing: tuple[str, ...] = ()
    missing_why: str = ""
    prepared: bool = False
    trouble: Optional[Trouble] = None
    healthy: Optional[bool] = None
    healthcheck: Optional[Healthcheck] = None
    heard_at: Optional[float] = None
    way_blocked: bool = False
    heir_ready: bool = False
    host_stops: bool = False
    busy: bool = False

    @property
    def alive(self) -> bool:
        return self.seen is not None and self.seen.exit is None

    @property
    def unnoted(self) -> Optional[Exit]:
        """The end of the last run, observed and not yet in the record."""
        return self.seen.exit if self.seen is not None and self.seen.run > self.record.noted else None

    @property
    def grace_s(self) -> float:
        return self.spec.container.stop_grace_s if self.spec else DEFAULT_GRACE_S

    @property
    def stop_signal(self) -> int:
        """The task's, the image's or SIGTERM. What is no signal is passed over: a container can be stopped whatever its image says."""
        task, image = self.spec.container.stop_signal if self.spec else None, self.image.config.stop_signal if self.image.config else None
        named = (_SIGNALS.get(_bare(text)) for text in (task, image) if text)
        return next((number for number in named if number is not None), signal.SIGTERM.value)


def signal_number(text: str) -> int:
    """The signal named SIGTERM, TERM, 15, RTMIN+3 or RTMAX-1. Raises InvalidTask for any other text."""
    number = _SIGNALS.get(_bare(text))
    if number is None:
        raise InvalidTask("InvalidSignal", f"stop signal {text!r} is not a signal of Linux; write SIGTERM, SIGINT, SIGRTMIN+3 or a number")
    return number


def _bare(text: str) -> str:
    return text.strip().upper().removeprefix("SIG")


def _signals() -> dict[str, int]:
    """By name and number. Real-time signals as glibc and Docker count them, whatever the C library here keeps for itself."""
    found = {name[3:]: number.value for name, number in signal.Signals.__members__.items()}
    found["STKFLT"] = 16  # Python has it since 3.11
    found.update({"RTMIN": 34, "RTMAX": 64})
    for offset in range(31):
        found[f"RTMIN+{offset}"], found[f"RTMAX-{offset}"] = 34 + offset, 64 - offset
    found.update({str(number): number for number in range(1, 65)})
    return found


_SIGNALS = _signals()
