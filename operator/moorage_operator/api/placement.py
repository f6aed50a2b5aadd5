"""Where tasks of a Service may run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moorage_operator.api.schema import Model, atomic_list, rule, text

NODE_KEY = "node[.](name|hostname|id|role|platform[.](os|arch)|labels[.][-._/a-zA-Z0-9]+)"
"""What plan/constraint.py can compare."""
_KEYS = "keys are node.name, node.hostname, node.id, node.role, node.platform.os, node.platform.arch and node.labels.<label>"
Constraint = Annotated[
    str, text(256, rule(f"self.matches('^ *{NODE_KEY} *[!=]= *[^ =].*$')", f"write a comparison such as node.labels.zone == eu; {_KEYS}"))
]


class Preference(Model):
    """How to spread tasks over nodes that are all allowed."""

    spread: Annotated[str, text(325, rule(f"self.matches('^{NODE_KEY}$')", f"write a key of nodes such as node.labels.rack; {_KEYS}"))]
    """What to spread over, such as node.labels.rack: its values get equal shares of the tasks."""


class Placement(Model):
    """Where tasks may run."""

    constraints: Annotated[tuple[Constraint, ...], atomic_list(32)] = ()
    """Conditions that a node must all meet, such as "node.labels.zone == eu"."""

    preferences: Annotated[tuple[Preference, ...], atomic_list(8)] = ()
    """How to spread over the nodes that remain, most important first."""

    max_replicas_per_node: Annotated[int, Field(ge=1, le=10000)] | None = None
    """So many tasks on one node at most. Absent: no limit."""

    sticky: bool | None = None
    """True: a slot stays on its node once placed. Absent: true if the task mounts a named volume."""
