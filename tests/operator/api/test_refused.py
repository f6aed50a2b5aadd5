"""What is wrong is refused at the door, with a message that names the field and says what to write."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.operator.api.cases import Refused, refused
from tests.operator.api.door import Door

CASES = list(refused())


@pytest.mark.kube
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_manifest_is_refused_with_words_that_help(door: Door, case: Refused) -> None:
    answer = _submit(door, case)
    assert answer["kind"] == "Status", f"accepted: {answer}"
    assert answer["code"] in (400, 422), answer
    missing = [fragment for fragment in case.says if fragment not in answer["message"]]
    assert not missing, f"{missing} not in: {answer['message']}"


def test_there_are_wrong_manifests_of_every_kind() -> None:
    assert {case.kind for case in CASES} == {"Service", "Stack", "Image", "Node", "Task"}
    assert len({str(case) for case in CASES}) == len(CASES)


def _submit(door: Door, case: Refused) -> dict[str, Any]:
    name = f"{case.name}-{random.randrange(10**6)}" if case.before else case.name
    manifest = door.manifest(case.kind, name, case.spec)
    if case.before is None:
        return door.create(manifest, dry_run=True)
    before = door.create(door.manifest(case.kind, name, case.before))
    assert before["kind"] == case.kind, before
    try:
        return door.change(manifest, before)
    finally:
        door.delete(manifest)
