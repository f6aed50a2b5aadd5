"""Placement constraints as users of Swarm write them: "node.labels.zone == eu", "node.hostname != n3"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.fleet_view import NodeView

ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "arm64v8": "arm64",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
}

_EXPRESSION: Final = re.compile(r"\s*([A-Za-z0-9._/-]+)\s*(==|!=)\s*(\S(?:.*\S)?)\s*")
_LABEL: Final = "node.labels."


@dataclass(frozen=True, slots=True)
class Constraint:
    """`value` is lower case: values compare without regard to case, label names do not."""

    key: str
    equals: bool
    value: str
    text: str

    def met_by(self, node: NodeView) -> bool:
        """A label the node lacks counts as empty, so `!=` holds."""
        return (_comparable(self.key, attribute(node, self.key)) == self.value) is self.equals


@lru_cache(maxsize=4096)
def parse_constraint(text: str) -> Constraint:
    """Raises InvalidSpec, saying what to write instead."""
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise InvalidSpec(f'cannot read constraint "{text}": write <key> == <value> or <key> != <value>', reason="InvalidPlacement")
    key, operator, value = match.groups()
    check_key(key, f'constraint "{text}"')
    return Constraint(key, operator == "==", _comparable(key, value), text)


def parse_spread(preferences: Sequence[str]) -> tuple[str, ...]:
    """The keys to spread over. Raises InvalidSpec for one that no node has."""
    for key in preferences:
        check_key(key, f'preference spread "{key}"')
    return tuple(preferences)


def attribute(node: NodeView, key: str) -> str:
    """The node's value of a constraint key; "" for a label it lacks."""
    if key.startswith(_LABEL):
        return node.labels.get(key.removeprefix(_LABEL), "")
    return _ATTRIBUTES[key](node)


def check_key(key: str, where: str) -> None:
    if key in _ATTRIBUTES or (key.startswith(_LABEL) and len(key) > len(_LABEL)):
        return
    known = ", ".join([*_ATTRIBUTES, "node.labels.<name>"])
    remedy = " (labels of the engine do not exist here: label the Node object)" if key.startswith("engine.") else ""
    raise InvalidSpec(f"{where}: there is no key {key}{remedy}; keys are {known}", reason="InvalidPlacement")


def architecture(name: str) -> str:
    """One name per architecture, the one images use: x86_64 is amd64, aarch64 is arm64."""
    return ARCHITECTURES.get(name.lower(), name.lower())


def _comparable(key: str, value: str) -> str:
    return architecture(value) if key == "node.platform.arch" else value.lower()


# Swarm's node.role: every Node here is what Swarm calls a worker, so files that keep services off the managers work unchanged.
_ATTRIBUTES: Final[dict[str, Callable[[NodeView], str]]] = {
    "node.name": lambda node: node.name,
    "node.hostname": lambda node: node.hostname,
    "node.id": lambda node: node.uid,
    "node.role": lambda _node: "worker",
    "node.platform.os": lambda node: node.os,
    "node.platform.arch": lambda node: node.arch,
}
