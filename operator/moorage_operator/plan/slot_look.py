"""What was found in one slot, and what it wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from moorage_operator.plan.service_plan import Advance, Orphan, Stop

NEW_VERSION: Final = "a new version"


@dataclass(frozen=True, slots=True)
class Want:
    """A new Task is due. `free`: nothing that serves is touched, so it waits for no other slot. `gated`: it is prepared first and runs once
    its predecessor is out of the way. `leaves`: the node to get away from, if any other will do.
    """

    reason: str
    replaces: str | None = None
    gated: bool = False
    free: bool = True
    new_version: bool = False
    serves: bool = False
    leaves: str | None = None
    attempts_used: int = 0


@dataclass(slots=True)
class Look:
    """What was found in one slot. `gate` are the steps that let a prepared candidate take over; they wait while an update is paused.

    `failing`: how tasks of the wished version fail here. `looping`: the agent has given it up as a crash loop. `waiting`: why the slot
    cannot be worked on. `unheard`: nobody knows whether its task still serves. `due`: times at which to look again.
    """

    slot: str
    orphan: list[Orphan] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)
    advance: list[Advance] = field(default_factory=list)
    gate: list[Stop | Advance] = field(default_factory=list)
    want: Want | None = None
    stale: bool = False
    updated: bool = False
    done: bool = False
    busy: bool = False
    looping: bool = False
    failing: str | None = None
    over: str | None = None
    waiting: str | None = None
    unheard: bool = False
    unsettled: bool = False
    due: list[datetime] = field(default_factory=list)
    attempt: int = 0
    home: str | None = None
