"""What a Lease says, and the changes one may want to make to it. Pure. Every change names the version it was decided on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from moorage_operator.kube.object import Key, Obj, parse_version
from moorage_operator.kube.timestamp import micro_timestamp

EPOCH: Final = "moorage.dev/epoch"
EPOCH_DIGITS: Final = 15
"""What is longer is no epoch of ours: JSON has exact numbers up to 2^53."""


@dataclass(frozen=True)
class LeaseRecord:
    """`holder` is "" for a Lease nobody holds; `renewed` is the holder's own clock, good only for telling one renewal from the next."""

    holder: str
    epoch: int
    renewed: str
    duration_s: float
    transitions: int
    version: str

    def is_older_than(self, other: LeaseRecord) -> bool:
        """Versions only grow, so an older one met later means that the API server's store was restored from a backup."""
        return parse_version(self.version) < parse_version(other.version)


def record_of(obj: Obj) -> LeaseRecord:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    epoch = (metadata.get("annotations") or {}).get(EPOCH, "")
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        epoch=int(epoch) if epoch.isdecimal() and len(epoch) <= EPOCH_DIGITS else 0,
        renewed=spec.get("renewTime") or "",
        duration_s=float(spec.get("leaseDurationSeconds") or 0),
        transitions=spec.get("leaseTransitions") or 0,
        version=metadata["resourceVersion"],
    )


def new_lease(key: Key, *, holder: str, epoch: int, duration_s: float, now: datetime) -> Obj:
    return {
        "metadata": {"namespace": key.namespace, "name": key.name, "annotations": {EPOCH: str(epoch)}},
        "spec": _held_by(holder, duration_s=duration_s, transitions=0, now=now),
    }


def taken_over(record: LeaseRecord, *, holder: str, epoch: int, duration_s: float, now: datetime) -> Obj:
    transitions = record.transitions + (record.holder != holder)
    return _only_if(record, epoch=epoch, spec=_held_by(holder, duration_s=duration_s, transitions=transitions, now=now))


def renewed(record: LeaseRecord, *, epoch: int, now: datetime) -> Obj:
    return _only_if(record, epoch=epoch, spec={"renewTime": micro_timestamp(now)})


def released(record: LeaseRecord, *, now: datetime) -> Obj:
    return _only_if(record, epoch=record.epoch, spec={"holderIdentity": None, "renewTime": micro_timestamp(now)})


def _held_by(holder: str, *, duration_s: float, transitions: int, now: datetime) -> Obj:
    moment = micro_timestamp(now)
    return {
        "holderIdentity": holder,
        "leaseDurationSeconds": round(duration_s),
        "leaseTransitions": transitions,
        "acquireTime": moment,
        "renewTime": moment,
    }


def _only_if(record: LeaseRecord, *, epoch: int, spec: Obj) -> Obj:
    metadata = {"resourceVersion": record.version, "annotations": {EPOCH: str(epoch)}}
    return {"metadata": metadata, "spec": spec}
