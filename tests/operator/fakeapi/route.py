"""What a path of the API means."""

from __future__ import annotations

from typing import NamedTuple

from tests.operator.fakeapi.refusal import Refusal


class Route(NamedTuple):
    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    part: str = ""

    @property
    def counted_as(self) -> str:
        return f"{self.plural}/{self.part}" if self.part else self.plural


def route_of(path: str) -> Route:
    """/api/v1/… and /apis/<group>/<version>/…, of all namespaces, of one, or of none."""
    steps = path.strip("/").split("/")
    if steps[0] == "api" and len(steps) > 2:
        group, version, rest = "", steps[1], steps[2:]
    elif steps[0] == "apis" and len(steps) > 3:
        group, version, rest = steps[1], steps[2], steps[3:]
    else:
        raise Refusal(404, "NotFound", "the server could not find the requested resource")
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    return Route(group, version, rest[0], namespace, *rest[1:3])
