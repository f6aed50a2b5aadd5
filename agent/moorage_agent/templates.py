"""The four templates of a task's text fields. Pure. Whatever else stands between {{ and }} is an error, not text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moorage_agent.errors import InvalidTask
from moorage_agent.protocol import TaskSpec

_PLACE = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)


def names_of(task: TaskSpec, node_name: str) -> dict[str, str]:
    """What the templates stand for in this task on this node."""
    return {".Node.Hostname": node_name, ".Task.Slot": task.slot, ".Task.Name": task.name, ".Service.Name": task.service}


def expand(text: str, names: Mapping[str, str], *, where: str) -> str:
    """`text` with its templates replaced, once: what a value holds is not expanded again. Raises InvalidTask naming field and template."""
    if "{{" not in text:
        return text

    def value(place: re.Match[str]) -> str:
        known = names.get(place.group(1))
        if known is None:
            raise InvalidTask("InvalidTemplate", f"{where}: unknown template {place.group(0)}; there are {_listed(names)}")
        return known

    return _PLACE.sub(value, text)


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(f"{{{{{name}}}}}" for name in sorted(names))
