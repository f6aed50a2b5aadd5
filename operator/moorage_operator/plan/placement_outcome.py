"""What placement answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from moorage_operator.plan.filters import Refusal

MAX_REASONS: Final = 6
MAX_NAMES: Final = 3


@dataclass(frozen=True, slots=True)
class Placement:
    task: str
    node: str

    def describe(self) -> str:
        return f"place {self.task} on {self.node}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nodes refused for one reason. `reason` is stable and CamelCase, `text` is for people and names or counts the nodes."""

    reason: str
    text: str
    nodes: int


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """No node will do. `refused` counts every Node of the fleet once, the most frequent reason first.

    `reason` is NoSuitableNode, NoNodes, or, where only a changed manifest helps, InvalidPlacement.
    """

    task: str
    reason: str
    message: str
    refused: tuple[Refused, ...] = ()

    def describe(self) -> str:
        return f"cannot place {self.task}: {self.message}"


@dataclass(frozen=True, slots=True)
class Bound:
    """The only nodes that come into question, and why: "its volume shop/db/data is there"."""

    nodes: frozenset[str]
    why: str


ELSEWHERE: Final = Refusal("BoundElsewhere", "{nodes} other than its own")


def unplaceable(task: str, refusals: Mapping[str, Refusal], bound: Bound | None = None) -> Unplaceable:
    """The explanation of one Refusal per node name."""
    if not refusals:
        return Unplaceable(task, "NoNodes", "no suitable node: this swarm has no Node yet")
    if bound is None:
        refused = _count(refusals)
        return Unplaceable(task, "NoSuitableNode", f"no suitable node: {_join(refused)}", refused)
    own = _count({name: refusal for name, refusal in refusals.items() if name in bound.nodes}, by_name=True)
    others = _count({name: refusal for name, refusal in refusals.items() if name not in bound.nodes})
    where = f"bound to {_names(sorted(bound.nodes)) if bound.nodes else 'no node'}: {bound.why}"
    return Unplaceable(task, "NoSuitableNode", f"no suitable node: {'; '.join(filter(None, (_join(own), where)))}", own + others)


def _count(refusals: Mapping[str, Refusal], *, by_name: bool = False) -> tuple[Refused, ...]:
    nodes: dict[Refusal, list[str]] = defaultdict(list)
    for name in sorted(refusals):
        nodes[refusals[name]].append(name)
    refused = [Refused(refusal.reason, _text(refusal, names, by_name=by_name), len(names)) for refusal, names in nodes.items()]
    return tuple(sorted(refused, key=lambda one: (-one.nodes, one.text)))


def _text(refusal: Refusal, names: list[str], *, by_name: bool) -> str:
    """Replaces and does not format: the text may hold braces of a user's or of a process's name."""
    count = _names(names) if by_name else f"{len(names)} node{'s' if len(names) > 1 else ''}"
    return refusal.text.replace("{nodes}", count).replace("{names}", _names(names))


def _names(names: list[str]) -> str:
    if len(names) > MAX_NAMES + 1:
        return f"{', '.join(names[:MAX_NAMES])} and {len(names) - MAX_NAMES} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _join(refused: Iterable[Refused]) -> str:
    texts = [one.text for one in refused]
    if len(texts) > MAX_REASONS:
        texts = [*texts[: MAX_REASONS - 1], f"{len(texts) - MAX_REASONS + 1} other reasons"]
    return "; ".join(texts)
