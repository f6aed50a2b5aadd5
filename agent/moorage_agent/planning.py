"""What this node would do for a document, without doing it: the `plan` verb."""

from __future__ import annotations

from typing import Any

from moorage_agent.clock import clock_of
from moorage_agent.contact import Contact
from moorage_agent.errors import AgentError
from moorage_agent.images.store import ImageStore
from moorage_agent.intake import Intake
from moorage_agent.paths import Paths
from moorage_agent.protocol import ProtocolError
from moorage_agent.runtime.runtime import Runtime
from moorage_agent.state import TaskStore
from moorage_agent.steps import Step, steps
from moorage_agent.task_state import ImageView, Seen
from moorage_agent.values import ValueStore
from moorage_agent.world import TaskState, World


def plan(paths: Paths, data: Any) -> list[Step]:
    """The first steps towards the document `data`. Raises AgentError when it is none."""
    try:
        document, digest = Intake().read(data)
    except ProtocolError as error:
        raise AgentError("Malformed", f"the document cannot be read: {error}") from error
    clock = clock_of(paths)
    world = observed_world(paths)
    Contact(world, paths, clock=clock, again=lambda _: None).recall()
    world.adopt_document(document, digest)
    images = ImageStore(paths)
    for spec in world.wished_images():
        image = images.get(spec.digest)
        if image is not None:
            world.images[spec.digest] = ImageView("Ready", config=image.config)
    now = clock()
    return steps((world.view(uid, now) for uid in world.tasks), document.images, world.images, now)


def observed_world(paths: Paths) -> World:
    """Tasks as their files and the runtime tell; asks no daemon."""
    world, store = World(ValueStore(paths)), TaskStore(paths)
    for uid in store.known():
        state, spec = TaskState(uid, record=store.record(uid)), store.spec(uid)
        world.tasks[uid] = state
        if spec is not None:
            world.remember(state, spec)
    runtime = Runtime(paths, cgroup_root=paths.cgroup_root)
    for container in runtime.observe():
        state = world.tasks.setdefault(container.uid, TaskState(container.uid))
        state.seen = Seen(container.run, container.pid, container.started_at, container.exit)
    runtime.close()
    return world
