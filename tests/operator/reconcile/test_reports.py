from __future__ import annotations

from moorage_agent.protocol import NodeReport, TaskReport
from moorage_operator.reconcile.reports import Reports


def full(*uids: str) -> NodeReport:
    return NodeReport(full=True, epoch=1, revision=1, hash="", tasks=tuple(TaskReport(uid, "Running") for uid in uids))


def test_what_was_reported_removed_is_gone_until_it_is_forgotten() -> None:
    reports = Reports()
    assert reports.take(NodeReport(full=False, epoch=1, revision=1, hash="", removed=("a",)), unwished=()) == ["a"]
    assert reports.is_gone("a")
    reports.forget("a")
    assert not reports.is_gone("a")


def test_an_unwished_task_that_a_full_report_lacks_is_gone_though_nobody_heard_of_its_removal() -> None:
    reports = Reports()
    assert set(reports.take(full("running"), unwished=["orphan"])) == {"running", "orphan"}
    assert reports.is_gone("orphan")
    assert not reports.is_gone("running")


def test_an_unwished_task_that_a_full_report_has_is_not_gone_yet() -> None:
    reports = Reports()
    reports.take(full("orphan"), unwished=["orphan"])
    assert not reports.is_gone("orphan")


def test_a_task_that_no_document_listed_cannot_be_on_its_node() -> None:
    reports = Reports()
    assert not reports.never_told("a", node="n")  # what others told it before is not known yet
    reports.know("n", [])
    assert reports.never_told("a", node="n")
    reports.tell(["a"])
    assert not reports.never_told("a", node="n")
    assert not reports.never_told("b", node="another")
