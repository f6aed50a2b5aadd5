"""What a Service wants done when its node is lost, and which settings of it would let two copies run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from moorage_operator.api import ServiceTemplate, seconds
from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.node_contact import SILENT_AFTER_S

LEADER_CHANGE: Final = timedelta(seconds=30)

# The operator counts from the last frame it got; the host may have heard the operator until the link was dropped for its silence.
ONE_WAY: Final = timedelta(seconds=SILENT_AFTER_S)


@dataclass(frozen=True, slots=True)
class LossRule:
    """`keep`: wait for the node, whatever it takes, for the reason in `why`. `after` counts from the last sign of life."""

    keep: bool = False
    after: timedelta = timedelta(seconds=30)
    why: str = ""


def loss_rule(service: ServiceTemplate) -> LossRule:
    """Mounting a named volume means Keep unless said otherwise: an empty database elsewhere is worse than a pause."""
    after = timedelta(seconds=seconds(service.unreachable.after))
    if service.unreachable.policy is not None:
        keep = service.unreachable.policy == "Keep"
        return LossRule(keep, after, "as unreachable.policy Keep says" if keep else "")
    volume = next((mount.volume.name for mount in service.task.mounts if mount.volume is not None), None)
    return LossRule(volume is not None, after, f"its volume {volume} is there" if volume is not None else "")


def check_disconnect(service: ServiceTemplate) -> None:
    """Raises InvalidSpec where the host might stop its copy only after another has started elsewhere."""
    if service.on_disconnect is None:
        return
    stop_after, rule = timedelta(seconds=seconds(service.on_disconnect.stop_after)), loss_rule(service)
    if stop_after < LEADER_CHANGE:
        raise InvalidSpec("onDisconnect.stopAfter: write at least 30s: a change of the operator's leader takes that long", reason=_REASON)
    needed = stop_after + timedelta(seconds=seconds(service.task.stop_grace_period)) + ONE_WAY
    if not rule.keep and needed >= rule.after:
        raise InvalidSpec(
            f"onDisconnect.stopAfter, stopGracePeriod and {ONE_WAY.total_seconds():g} s until a cut link is noticed make "
            f"{needed.total_seconds():g} s, and unreachable.after is {rule.after.total_seconds():g} s: two copies could run; "
            f"write unreachable.after: {needed.total_seconds() + 1:.0f}s or more, or unreachable.policy: Keep",
            reason=_REASON,
        )


_REASON: Final = "InvalidOnDisconnect"
