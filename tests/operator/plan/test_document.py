"""The document of a node: what is in it, in which order, and which values it may ask for."""

from __future__ import annotations

from random import Random

import pytest
from moorage_agent import protocol
from moorage_agent.protocol import ImageSource, ImageSpec, NodeSpec, content_hash, from_wire, to_wire
from moorage_operator.api import Task
from moorage_operator.plan.document import node_document, node_images, node_tasks, value_keys

from tests.operator.plan.fleets import NOON
from tests.operator.plan.objects import DIGEST, task

SOURCE = ImageSource("Registry", reference="app:1", credentials="pull/shop/regcred", ca_bundle="ca/shop/trust/ca.pem")
SOURCES = {("shop", "app"): SOURCE}
CONTAINER = protocol.Container(
    args=("--x",),
    env=(protocol.EnvVar("A", value="1"), protocol.EnvVar("B", key="secret/shop/db/password/0011223344556677")),
    files=(protocol.DataFile("/etc/x", "config/shop/app/x/8899aabbccddeeff", secret=False),),
    stop_grace_s=3.0,
)


def document(*tasks: Task) -> NodeSpec:
    return node_document("n1", "uid-n1", node_tasks("n1", tasks, SOURCES), (), swarm_id="swarm", epoch=4, revision=9)


def test_a_task_travels_whole() -> None:
    one = task(
        container=to_wire(CONTAINER), replaces="old", desiredState="Ready", handover="StartFirst", stopAfter="1m30s", stack="s", attempt=3
    )
    spec = from_wire(NodeSpec, to_wire(document(one)))
    assert (spec.swarm_id, spec.node_uid, spec.epoch, spec.revision, spec.node_name) == ("swarm", "uid-n1", 4, 9, "n1")
    assert spec.tasks == (
        protocol.TaskSpec(
            uid="uid-web-1-abc",
            namespace="shop",
            name="web-1-abc",
            service="web",
            slot="1",
            version="v1",
            container=CONTAINER,
            image=ImageSpec(DIGEST, SOURCE),
            desired_state="Ready",
            stack="s",
            attempt=3,
            replaces="old",
            handover="StartFirst",
            stop_after_s=90.0,
        ),
    )


@pytest.mark.parametrize(
    ("one", "inside"),
    [
        (task(), True),
        (task(status={"state": "Running"}), True),
        (task(status={"state": "Failed"}), True),
        (task(status={"state": "Complete"}), True),
        (task(status={"state": "Orphaned"}), False),
        (task(deleted=NOON), False),
        (task(nodeName="n2"), False),
        (task(nodeName=None), False),
        (task(image=None), False),
    ],
)
def test_what_should_not_run_here_is_left_out(one: Task, inside: bool) -> None:
    assert bool(document(one).tasks) is inside


def test_the_order_of_tasks_does_not_change_the_document() -> None:
    tasks = [task(f"web-{index}") for index in range(9)]
    shuffled = Random(7).sample(tasks, len(tasks))
    assert content_hash(document(*shuffled)) == content_hash(document(*tasks))


def test_tasks_go_on_when_their_image_object_was_deleted() -> None:
    spec = node_tasks("n1", [task()], {})[0]
    assert spec.image == ImageSpec(DIGEST, ImageSource("Deleted", reference="app"))


def test_a_document_names_the_values_it_needs_and_no_value() -> None:
    spec = document(task(container=to_wire(CONTAINER)))
    assert value_keys(spec) == {
        "secret/shop/db/password/0011223344556677",
        "config/shop/app/x/8899aabbccddeeff",
        "pull/shop/regcred",
        "ca/shop/trust/ca.pem",
    }


def test_images_beyond_those_of_tasks_are_wished_once() -> None:
    one, other = ImageSpec("sha256:b", SOURCE), ImageSpec("sha256:a", ImageSource("ArchiveData", key="config/shop/app/tar"))
    assert node_images([one, other, one]) == (other, one)
    wish = node_document("n1", "u", (), node_images([other]), swarm_id="s", epoch=1, revision=1)
    assert value_keys(wish) == {"config/shop/app/tar"}
