"""A swarm at rest, as objects: Nodes, Images, Services and their Tasks, each with the status the operator would have written last.

Made with the operator's own planners, so an operator that starts on it has nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from moorage_agent.protocol import RELEASE, Feature, HostFacts, ImageConfig, ImageReport, Layer, ResolvedImage, TaskReport
from moorage_operator.api import NODE_FINALIZER, Image, Model, Node, Service, Task
from moorage_operator.api.resource import Resource as AnyModel
from moorage_operator.fleet.archive import agent_archive
from moorage_operator.fleet.link import Link
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import IMAGES, NODES, SECRETS, SERVICES, TASKS, Resource
from moorage_operator.plan.container_data import DataVersions
from moorage_operator.plan.fleet_view_cache import FleetView
from moorage_operator.plan.image import ImagePlan
from moorage_operator.plan.image_source import owned_image_name
from moorage_operator.plan.image_status import Holders, image_status, resolved_status
from moorage_operator.plan.loss import Losses
from moorage_operator.plan.node import node_status
from moorage_operator.plan.node_condition import Agent
from moorage_operator.plan.service import plan_service
from moorage_operator.plan.service_status import service_status
from moorage_operator.plan.task import task_status
from moorage_operator.reconcile.image import owned_image
from moorage_operator.reconcile.task import task_body
from moorage_operator.reconcile.world import key_of_model, wire_status

from tests.operator.fakeapi.store import Store

NAMESPACE = "default"
GIB = 2**30
RUNNING_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = RUNNING_SINCE - timedelta(days=1)
NO_DATA = DataVersions()

M = TypeVar("M", bound=AnyModel)


@dataclass(frozen=True)
class Size:
    nodes: int
    services: int
    replicas: int

    @property
    def tasks(self) -> int:
        return self.services * self.replicas


def facts(number: int) -> HostFacts:
    present = ("overlay", "seccomp", "pids", "memory", "cpu", "SYS_ADMIN", "kernel", "user-namespaces")
    return HostFacts(
        host_id=f"host-{number}",
        hostname=node_name(number),
        os="Debian GNU/Linux 12",
        kernel="6.1.0-21-amd64",
        arch="amd64",
        boot_id=f"boot-{number}",
        python="3.11.2",
        agent_version=agent_archive().sha256,
        cpu_millis=64_000,
        memory_bytes=256 * GIB,
        cgroup="v2",
        features=tuple(Feature(name, present=True) for name in present),
        agent_release=RELEASE,
    )


def running(uid: str) -> TaskReport:
    return TaskReport(uid, "Running", started_at=RUNNING_SINCE.timestamp(), pid=4711, healthy=True)


def node_name(number: int) -> str:
    return f"node-{number:04}"


def digest(number: int) -> str:
    return f"sha256:{number + 1:064x}"


@dataclass
class Population:
    """Fills a Store."""

    store: Store
    size: Size
    _view: FleetView = field(default_factory=FleetView)

    def fill(self) -> None:
        self.store.create(SECRETS, KEY_SECRET)
        nodes = [self._create(NODES, Node, _node(number)) for number in range(self.size.nodes)]
        services = [self._service(number) for number in range(self.size.services)]
        for number, node in enumerate(nodes):
            self._settle_node(number, node)
        for number, (service, image, tasks) in enumerate(services):
            self._settle_service(service, image, tasks)
            self._settle_image(number, image, tasks)

    def _service(self, number: int) -> tuple[Service, Image, list[Task]]:
        service = self._create(SERVICES, Service, _service(number, self.size.replicas))
        reference = service.spec.task.image or ""
        key = Key(NAMESPACE, owned_image_name(service.metadata.name, reference))
        image = self._create(IMAGES, Image, owned_image(service, key, reference))
        layers = tuple(Layer(digest(1_000_000 + number * 10 + layer), 9_000_000) for layer in range(5))
        answer = ResolvedImage(digest(number), "linux/amd64", 45_000_000, ImageConfig(command=("serve",)), layers, ("linux/amd64",))
        image = self._say(IMAGES, image, resolved_status(image, answer, now=LONG_AGO))
        return service, image, self._tasks(number, service, image)

    def _tasks(self, number: int, service: Service, image: Image) -> list[Task]:
        plan = plan_service(service, [], self._view.fleet(), Losses(frozenset()), image=image, data=NO_DATA, now=LONG_AGO)
        return [
            self._task(task_body(service, image, draft, node_name((number * self.size.replicas + index) % self.size.nodes)))
            for index, draft in enumerate(plan.create)
        ]

    def _task(self, body: Obj) -> Task:
        task = self._create(TASKS, Task, body)
        status = task_status(task, running(task.metadata.uid), now=RUNNING_SINCE)
        assert status is not None
        task = self._say(TASKS, task, status)
        self._view.put_task(task)
        return task

    def _settle_node(self, number: int, node: Node) -> None:
        now = datetime.now(UTC)
        link = Link(connected=True, reason="", message="", last_frame_at=now.timestamp(), facts=facts(number))
        self._view.put_node(node)
        load = self._view.fleet().nodes[node.metadata.name].load
        agent = Agent(agent_archive().sha256)
        status = node_status(node, link, load, Losses(frozenset()), agent=agent, leading_since=LONG_AGO, now=now)
        assert status is not None
        self._view.put_node(self._say(NODES, node, status))

    def _settle_service(self, service: Service, image: Image, tasks: list[Task]) -> None:
        fleet, now = self._view.fleet(), datetime.now(UTC)
        plan = plan_service(service, tasks, fleet, Losses(frozenset(fleet.nodes)), image=image, data=NO_DATA, now=now)
        assert not list(plan.steps()), plan.describe()
        self._say(SERVICES, service, service_status(service, tasks, plan, image=image, now=now))

    def _settle_image(self, number: int, image: Image, tasks: list[Task]) -> None:
        held = {task.spec.node_name or "": ImageReport(digest(number), "Ready") for task in tasks}
        status = image_status(image, ImagePlan(), [], Holders(frozenset(held), held), now=datetime.now(UTC))
        assert status is not None
        self._say(IMAGES, image, status)

    def _create(self, resource: Resource, model: type[M], body: Obj) -> M:
        return model.parse(self.store.create(resource, body, manager="moorage"))

    def _say(self, resource: Resource, model: M, status: Model) -> M:
        wire = wire_status(status)
        said = self.store.update(resource, key_of_model(model), lambda old: {**old, "status": wire}, part="status", manager="moorage")
        return type(model).parse(said)


KEY_SECRET: Obj = {"metadata": {"namespace": "moorage-system", "name": "fleet-key"}, "data": {"ssh-privatekey": "bm90IGEga2V5"}}


def _node(number: int) -> Obj:
    ssh = {"host": node_name(number), "keySecretRef": {"name": "fleet-key"}, "hostKeys": [f"ssh-ed25519 {number:043}"]}
    labels = {"zone": f"z{number % 3}", "rack": f"r{number % 40}"}
    return {"metadata": {"name": node_name(number), "labels": labels, "finalizers": [NODE_FINALIZER]}, "spec": {"ssh": ssh}}


def _service(number: int, replicas: int) -> Obj:
    """About 2 KB of container, as a real one."""
    env = [{"name": f"VARIABLE_{index}", "value": f"value-{number}-{index}" * 2} for index in range(12)]
    task = {
        "image": f"registry.example/app-{number}:1.2",
        "args": ["serve", "--port", "8080"],
        "env": env,
        "healthcheck": {"http": {"port": 8080, "path": "/healthz"}, "interval": "10s"},
        "resources": {"limits": {"memory": "256Mi"}, "reservations": {"cpu": "100m", "memory": "128Mi"}},
    }
    return {"metadata": {"namespace": NAMESPACE, "name": f"web-{number}"}, "spec": {"replicas": replicas, "task": task}}
