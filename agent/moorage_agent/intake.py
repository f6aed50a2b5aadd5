"""Reads documents. A task whose text did not change since the last document is not parsed again: documents are whole, changes are small."""

from __future__ import annotations

import dataclasses
from typing import Any

from moorage_agent.errors import InvalidTask
from moorage_agent.paths import task_uid
from moorage_agent.protocol import NodeSpec, ProtocolError, TaskSpec, content_hash, from_wire


class Intake:
    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, TaskSpec]] = {}

    def read(self, data: Any) -> tuple[NodeSpec, str]:
        """A document from its wire form, and its content hash. Raises ProtocolError naming what is wrong."""
        if not isinstance(data, dict) or not isinstance(data.get("tasks", []), list):
            raise ProtocolError("the document is not an object with a list of tasks")
        bare = from_wire(NodeSpec, {name: value for name, value in data.items() if name != "tasks"})
        known = {}
        for task in data.get("tasks", ()):
            spec = self._task(task)
            if spec.uid in known:
                raise ProtocolError(f"task {spec.uid} stands twice in the document")
            known[spec.uid] = (task, spec)
        self._known = known
        return dataclasses.replace(bare, tasks=tuple(spec for _, spec in known.values())), content_hash(data)

    def _task(self, data: Any) -> TaskSpec:
        uid = data.get("uid") if isinstance(data, dict) else None
        before = self._known.get(uid) if isinstance(uid, str) else None
        if before is not None and before[0] == data:
            return before[1]
        spec = from_wire(TaskSpec, data)
        try:
            task_uid(spec.uid)
        except InvalidTask as error:
            raise ProtocolError(error.message) from error
        return spec
