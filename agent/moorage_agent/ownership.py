"""Who may command this node. Pure: the binding on disk against what an operator says of itself.

A host belongs to one swarm and one Node object from first contact on. Epochs fence off a leader that lost its lease: the highest ever
obeyed is kept, a lower one is refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from moorage_agent.errors import Refused
from moorage_agent.protocol import NodeSpec, ProtocolError


@dataclass(frozen=True)
class Binding:
    swarm_id: str
    node_uid: str
    epoch: int


@dataclass(frozen=True)
class Claim:
    """An operator's hello. adopt: it takes the host over, from another swarm or from a Node object of its own that is no more."""

    swarm_id: str
    node_uid: str
    epoch: int
    adopt: bool = False


def claim_of(message: dict[str, Any]) -> Claim:
    """The claim in a hello frame. Raises ProtocolError when it is no hello."""
    try:
        swarm_id, node_uid, epoch = message["swarmId"], message["nodeUid"], message["epoch"]
    except KeyError as error:
        raise ProtocolError(f"the hello lacks {error}") from error
    if not (isinstance(swarm_id, str) and isinstance(node_uid, str) and type(epoch) is int):
        raise ProtocolError("the hello's swarmId and nodeUid must be text, its epoch a number")
    return Claim(swarm_id, node_uid, epoch, message.get("adopt") is True)


def bind(bound: Binding | None, claim: Claim) -> Binding:
    """The binding after this claim. Raises Refused: OwnedByAnotherSwarm, StaleEpoch or DuplicateHost."""
    wished = Binding(claim.swarm_id, claim.node_uid, claim.epoch)
    if bound is None:
        return wished
    if bound.swarm_id != claim.swarm_id:
        if claim.adopt:
            return wished
        raise Refused("OwnedByAnotherSwarm", f"this host belongs to swarm {bound.swarm_id}; set spec.adopt on the Node to take it over")
    if claim.epoch < bound.epoch:
        raise Refused("StaleEpoch", f"epoch {claim.epoch} is over: this host obeyed epoch {bound.epoch}")
    if bound.node_uid == claim.node_uid or claim.adopt:
        return wished
    raise Refused(
        "DuplicateHost",
        f"this host already is the Node with uid {bound.node_uid} of the same swarm; delete one of the two, or set spec.adopt on this one",
    )


def admit(bound: Binding, held: NodeSpec | None, held_hash: str, spec: NodeSpec, spec_hash: str) -> Binding:
    """The binding after this document. Raises Refused when it comes from someone else, or is older than the one in force."""
    if (spec.swarm_id, spec.node_uid) != (bound.swarm_id, bound.node_uid):
        raise Refused(
            "OwnedByAnotherSwarm", f"the document is for node {spec.node_uid} of swarm {spec.swarm_id}; this host is {bound.node_uid}"
        )
    if spec.epoch < bound.epoch:
        raise Refused("StaleEpoch", f"the document's epoch {spec.epoch} is over: this host obeyed epoch {bound.epoch}")
    if held is not None and spec.epoch == held.epoch:
        if spec.revision < held.revision:
            raise Refused("StaleRevision", f"revision {spec.revision} is older than revision {held.revision} in force")
        if spec.revision == held.revision and spec_hash != held_hash:
            raise Refused("StaleRevision", f"revision {spec.revision} is in force with other content; send a higher revision")
    return dataclasses.replace(bound, epoch=spec.epoch)


def rebound(held: NodeSpec, binding: Binding) -> NodeSpec:
    """The document in force under a new owner, as its revision 0: containers go on until the owner's first document says otherwise."""
    return dataclasses.replace(held, swarm_id=binding.swarm_id, node_uid=binding.node_uid, epoch=binding.epoch, revision=0)
