"""The document of one node: the whole wish for it, built from its Tasks and the Images it shall hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from moorage_agent.protocol import Container, ImageSource, ImageSpec, NodeSpec, TaskSpec

from moorage_operator.api import Task, seconds
from moorage_operator.plan.task_container import compiled

ImageKey = tuple[str, str]
Sources = Mapping[ImageKey, ImageSource]


def node_document(
    node_name: str, node_uid: str, tasks: Iterable[TaskSpec], images: Iterable[ImageSpec], *, swarm_id: str, epoch: int, revision: int
) -> NodeSpec:
    """`tasks` and `images` as node_tasks and node_images give them."""
    return NodeSpec(
        swarm_id=swarm_id, node_uid=node_uid, epoch=epoch, revision=revision, node_name=node_name, tasks=tuple(tasks), images=tuple(images)
    )


def node_tasks(
    node_name: str, tasks: Iterable[Task], sources: Sources, spec_of: Callable[[Task, Sources], TaskSpec] | None = None
) -> tuple[TaskSpec, ...]:
    """The tasks of a node's document, in an order of their own. `sources` are by namespace and name of the Image.

    A Task being deleted or orphaned is left out: that stops and removes its container. One that ended stays in, so that its logs stay too.
    """
    wanted = [task for task in tasks if _belongs(task, node_name)]
    spec_of = spec_of or task_spec
    return tuple(spec_of(task, sources) for task in sorted(wanted, key=lambda task: (task.metadata.namespace, task.metadata.name)))


def node_images(images: Iterable[ImageSpec]) -> tuple[ImageSpec, ...]:
    """The images wished beyond those of the tasks (prefetch), each once."""
    return tuple({image.digest: image for image in sorted(images, key=lambda image: (image.digest, repr(image.source)))}.values())


def task_spec(task: Task, sources: Sources, container: Container | None = None) -> TaskSpec:
    """`container` is the Task's, if it is known already. Raises ProtocolError when it is not what the operator compiles."""
    meta, spec = task.metadata, task.spec
    assert spec.image is not None
    name, digest = spec.image.name or "", spec.image.digest or ""
    return TaskSpec(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        service=spec.service,
        slot=spec.slot,
        version=spec.version,
        container=container or compiled(spec.container),
        image=ImageSpec(digest, sources.get((meta.namespace, name)) or _gone(name)),
        desired_state=spec.desired_state,
        stack=spec.stack,
        attempt=spec.attempt,
        replaces=spec.replaces,
        handover=spec.handover,
        stop_after_s=None if spec.stop_after is None else seconds(spec.stop_after),
    )


def is_wished(task: Task) -> bool:
    """Whether its container shall be there at all. Once it shall not, no later document lists it again."""
    return task.metadata.deletion_timestamp is None and task.status.state != "Orphaned"


def value_keys(document: NodeSpec) -> frozenset[str]:
    """Keys of the values this document refers to: a node is given these and no others."""
    images = [task.image for task in document.tasks] + list(document.images)
    return frozenset(key for task in document.tasks for key in _container_keys(task.container)) | frozenset(
        key for image in images for key in (image.source.key, image.source.credentials, image.source.ca_bundle) if key
    )


def _belongs(task: Task, node_name: str) -> bool:
    return task.spec.node_name == node_name and is_wished(task) and task.spec.image is not None and task.spec.image.digest is not None


def _container_keys(container: Container) -> Iterator[str]:
    yield from (variable.key for variable in container.env if variable.key)
    yield from (file.key for file in container.files)


def _gone(name: str) -> ImageSource:
    """The Image was deleted while its tasks run: they go on, and a node that lacks the layers says that it knows no such source."""
    return ImageSource(kind="Deleted", reference=name)
