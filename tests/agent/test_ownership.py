from __future__ import annotations

import dataclasses

import pytest
from moorage_agent.errors import Refused
from moorage_agent.ownership import Binding, Claim, admit, bind, claim_of, rebound
from moorage_agent.protocol import ProtocolError

from tests.agent.fake_host import document, task

OURS = Binding("swarm", "node", 5)


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        pytest.param(Claim("swarm", "node", 5), Binding("swarm", "node", 5), id="the same leader again"),
        pytest.param(Claim("swarm", "node", 6), Binding("swarm", "node", 6), id="the next leader"),
        pytest.param(Claim("swarm", "node", 4), "StaleEpoch", id="a leader that lost its lease"),
        pytest.param(Claim("swarm", "node", 4, adopt=True), "StaleEpoch", id="adopt does not help a stale leader of the same swarm"),
        pytest.param(Claim("other", "node", 9), "OwnedByAnotherSwarm", id="another swarm, however high its epoch"),
        pytest.param(Claim("other", "theirs", 1, adopt=True), Binding("other", "theirs", 1), id="another swarm that a person let in"),
        pytest.param(Claim("swarm", "second", 5), "DuplicateHost", id="a second Node beside the first"),
        pytest.param(Claim("swarm", "anew", 5, adopt=True), Binding("swarm", "anew", 5), id="a Node made anew, or one a person preferred"),
    ],
)
def test_a_claim_on_a_bound_host(claim: Claim, outcome: Binding | str) -> None:
    if isinstance(outcome, Binding):
        assert bind(OURS, claim) == outcome
    else:
        with pytest.raises(Refused) as refused:
            bind(OURS, claim)
        assert refused.value.code == outcome


def test_the_first_operator_gets_a_host_that_belongs_to_nobody() -> None:
    assert bind(None, Claim("swarm", "node", 3)) == Binding("swarm", "node", 3)


@pytest.mark.parametrize(
    ("held", "offered", "outcome"),
    [
        (None, (5, 1), 5),
        ((5, 7), (5, 8), 5),
        ((5, 7), (6, 1), 6),
        ((5, 7), (5, 6), "StaleRevision"),
        ((5, 7), (5, 7), "StaleRevision"),
        ((5, 7), (4, 9), "StaleEpoch"),
    ],
)
def test_a_document_beside_the_one_in_force(held: tuple[int, int] | None, offered: tuple[int, int], outcome: int | str) -> None:
    in_force = None if held is None else document(epoch=held[0], revision=held[1])
    new = document(task(1), epoch=offered[0], revision=offered[1])
    if isinstance(outcome, int):
        assert admit(OURS, in_force, "old", new, "new").epoch == outcome
    else:
        with pytest.raises(Refused, match=r"\d") as refused:
            admit(OURS, in_force, "old", new, "new")
        assert refused.value.code == outcome


def test_the_same_document_again_is_welcome() -> None:
    held = document(epoch=5, revision=7)
    assert admit(OURS, held, "same", held, "same") == OURS


def test_a_document_for_another_node_is_refused() -> None:
    with pytest.raises(Refused):
        admit(OURS, None, "", dataclasses.replace(document(), node_uid="other"), "")


def test_a_new_owner_begins_at_revision_zero_with_the_tasks_that_run() -> None:
    held = document(task(1), epoch=9, revision=40)
    kept = rebound(held, Binding("other", "theirs", 1))
    assert (kept.swarm_id, kept.node_uid, kept.epoch, kept.revision, kept.tasks) == ("other", "theirs", 1, 0, held.tasks)


@pytest.mark.parametrize(
    "message",
    [{}, {"swarmId": "s", "nodeUid": "n"}, {"swarmId": "s", "nodeUid": "n", "epoch": "1"}, {"swarmId": 1, "nodeUid": "n", "epoch": 1}],
)
def test_a_hello_that_is_none_is_said_to_be_none(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        claim_of(message)
