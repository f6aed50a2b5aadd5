"""What a Task without a node still asks for."""

from __future__ import annotations

from moorage_operator.plan.pending import pending_needs

from tests.operator.plan.objects import image, service, task


def test_a_task_that_waits_keeps_to_the_node_that_has_its_archive() -> None:
    archive = image(archive={"nodePath": {"nodeRef": {"name": "n1"}, "path": "/srv/app.tar"}})
    one = service(task={"imageRef": {"name": "app"}}, placement={"constraints": ["node.labels.zone == a"]})
    needs = pending_needs(one, task(nodeName=None), archive)
    assert needs.demand.constraints == ("node.labels.zone == a", "node.name == n1")
