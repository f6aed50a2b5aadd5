"""What of each Task enters its node's document, worked out once per generation: most changes of Tasks are changes of their status."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from moorage_agent.protocol import ImageSource, ProtocolError, TaskSpec, to_wire

from moorage_operator.api import Image, Task
from moorage_operator.kube.cache import Change
from moorage_operator.kube.object import Key, uid_of
from moorage_operator.plan.document import ImageKey, Sources, node_tasks, task_spec
from moorage_operator.plan.image_source import image_source
from moorage_operator.plan.task_container import Containers
from moorage_operator.reconcile.typed import Typed, unreadable


class Entry(NamedTuple):
    generation: int
    source: ImageSource | None
    spec: TaskSpec
    wire: dict[str, Any]
    """Shares the container with the Task object and with all others of its version."""


class Documented:
    """By uid of the Task. `images` say where each image comes from."""

    def __init__(self, containers: Containers, tasks: Typed[Task], images: Typed[Image]) -> None:
        self._containers = containers
        self._sources = _Sources(images)
        self._entries: dict[str, Entry] = {}
        tasks.raw.subscribe(self._forget)

    def of(self, node_name: str, tasks: Iterable[Task]) -> list[Entry]:
        """In the order of the document."""
        specs = node_tasks(node_name, tasks, self._sources, self._spec)
        return [self._entries[spec.uid] for spec in specs]

    def _spec(self, task: Task, sources: Sources) -> TaskSpec:
        known, source = self._entries.get(task.metadata.uid), sources.get(_image(task))
        if known is None or (known.generation, known.source) != (task.metadata.generation, source):
            try:
                container = self._containers.of(task)
            except ProtocolError as error:
                raise unreadable(f"the container of Task {task.metadata.namespace}/{task.metadata.name}", error) from error
            spec = task_spec(task, sources, container)
            known = self._entries[spec.uid] = Entry(task.metadata.generation, source, spec, _wire(spec, task))
        return known.spec

    def _forget(self, change: Change) -> None:
        if change.departed is not None:
            self._entries.pop(uid_of(change.departed), None)


class _Sources(dict[ImageKey, ImageSource]):
    """The source of each Image, worked out once per version when a task needs it."""

    def __init__(self, images: Typed[Image]) -> None:
        super().__init__()
        self._images = images
        self._known: dict[ImageKey, tuple[Image, ImageSource]] = {}

    def get(self, key: ImageKey, default: Any = None) -> Any:
        image, known = self._images.get(Key(*key)), self._known.get(key)
        if image is None:
            self._known.pop(key, None)
            return default
        if known is None or known[0] is not image:
            known = self._known[key] = (image, image_source(image))
        return known[1]


def _image(task: Task) -> ImageKey:
    return task.metadata.namespace, (task.spec.image and task.spec.image.name) or ""


def _wire(spec: TaskSpec, task: Task) -> dict[str, Any]:
    wire: dict[str, Any] = to_wire(spec)
    return wire | {"container": task.spec.container}
