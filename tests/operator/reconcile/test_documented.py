"""What Tasks put into their node's document: worked out when it changes, not when a status does."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from moorage_agent.protocol import Container, ImageSource, TaskSpec, from_wire, to_wire
from moorage_operator.api import Image, Task
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import IMAGES, TASKS
from moorage_operator.plan.task_container import Containers
from moorage_operator.reconcile import indexes
from moorage_operator.reconcile.documented import Documented, Entry
from moorage_operator.reconcile.typed import Typed

DIGEST = "sha256:" + "a" * 64
APP = Key("shop", "app")


@dataclass
class Bench:
    """The caches of Tasks and Images; `documented` sees what a test puts there."""

    containers: Containers = field(default_factory=Containers)
    versions: count[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.tasks = Typed(Cache(TASKS, indexes=indexes.TASK_INDEXES, share=self.containers.share), Task)
        self.images = Typed(Cache(IMAGES), Image)
        self.documented = Documented(self.containers, self.tasks, self.images)

    def task(self, name: str = "web-1", *, uid: str = "", generation: int = 1, status: Obj | None = None, **spec: Any) -> None:
        wanted = {"service": "web", "slot": "1", "version": "v1", "nodeName": "n1", "image": {"name": "app", "digest": DIGEST}}
        container = {"container": to_wire(Container(args=("serve",)))}
        self._put(self.tasks.raw, Key("shop", name), uid or f"uid-{name}", generation, {**wanted, **container, **spec}, status)

    def image(self, reference: str = "app:1", *, uid: str = "uid-app", status: Obj | None = None) -> None:
        self._put(self.images.raw, APP, uid, 1, {"registry": {"reference": reference}}, status)

    def entries(self) -> list[Entry]:
        return self.documented.of("n1", self.tasks.by(indexes.NODE, "n1"))

    def spec(self) -> TaskSpec:
        [entry] = self.entries()
        return entry.spec

    def _put(self, cache: Cache, key: Key, uid: str, generation: int, spec: Obj, status: Obj | None) -> None:
        version = str(next(self.versions))
        metadata = {"namespace": key.namespace, "name": key.name, "uid": uid, "generation": generation, "resourceVersion": version}
        assert cache.put({"metadata": metadata, "spec": spec, "status": status or {}})


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.image()
    return bench


def test_a_new_status_works_nothing_out_anew(bench: Bench) -> None:
    bench.task()
    before = bench.spec()
    bench.task(status={"state": "Running"})
    assert bench.spec() is before
    bench.image(status={"digest": DIGEST, "nodes": {"wanted": 3, "ready": 2}})
    assert bench.spec() is before


def test_a_new_generation_of_a_task_is_in_the_next_document(bench: Bench) -> None:
    bench.task(desiredState="Ready")
    assert bench.spec().desired_state == "Ready"
    bench.task(generation=2, desiredState="Running")
    assert bench.spec().desired_state == "Running"


def test_a_new_source_of_the_image_reaches_tasks_that_did_not_change(bench: Bench) -> None:
    bench.task()
    assert bench.spec().image.source == ImageSource("Registry", reference="app:1")
    bench.image("mirror.example/app:1")
    assert bench.spec().image.source == ImageSource("Registry", reference="mirror.example/app:1")


def test_a_task_outlives_its_image_object_and_knows_it_again_when_it_is_back(bench: Bench) -> None:
    bench.task()
    bench.spec()
    bench.images.raw.remove(APP)
    assert bench.spec().image.source == ImageSource("Deleted", reference="app")
    bench.image(uid="uid-app-again")
    assert bench.spec().image.source == ImageSource("Registry", reference="app:1")


def test_a_task_made_anew_under_its_old_name_is_documented_as_what_it_is_now(bench: Bench) -> None:
    bench.task(uid="first", attempt=1)
    assert (bench.spec().uid, bench.spec().attempt) == ("first", 1)
    bench.task(uid="second", attempt=2)
    assert (bench.spec().uid, bench.spec().attempt) == ("second", 2)


def test_nothing_is_kept_of_a_task_that_is_gone(bench: Bench) -> None:
    bench.task()
    known = weakref.ref(bench.spec())
    bench.tasks.raw.remove(Key("shop", "web-1"))
    gc.collect()
    assert known() is None


def test_nothing_is_kept_of_the_predecessor_of_a_task_made_anew(bench: Bench) -> None:
    bench.task(uid="first")
    known = weakref.ref(bench.spec())
    bench.task(uid="second")
    gc.collect()
    assert known() is None


def test_the_wire_form_says_what_the_spec_says(bench: Bench) -> None:
    bench.task(desiredState="Ready", stopAfter="90s", replaces="old")
    [entry] = bench.entries()
    assert from_wire(TaskSpec, entry.wire) == entry.spec
    assert entry.spec.container == Container(args=("serve",))


def test_tasks_of_one_version_hold_one_container_between_them_and_their_documents(bench: Bench) -> None:
    bench.task("web-1")
    bench.task("web-2")
    bench.task("web-1", status={"state": "Running"})
    containers = [entry.wire["container"] for entry in bench.entries()] + [obj["spec"]["container"] for obj in bench.tasks.raw.values()]
    assert len(containers) == 4
    assert all(container is containers[0] for container in containers)
