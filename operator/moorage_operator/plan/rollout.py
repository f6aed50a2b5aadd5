"""Which slots may be replaced now: as many at once as update.parallelism says, each some time after the one before, none after a failure.

All of it is read off the Tasks: a replacement is under way while its Task is not ready, it was finished when that became ready, and an
update has failed while a Task of the new version fails. Nothing is remembered, so a correction (a new spec, an image that appears, a
database that comes up) lets the update go on by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moorage_operator.plan.service_plan import Problem
from moorage_operator.plan.service_wish import Wish
from moorage_operator.plan.slot_look import Look

TOLERATED_PERCENT = 0
"""Of the slots, how many may fail before an update stops. A field of the API once there are failure policies."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """`granted`: slots that get the Task they want. `opened`: slots whose prepared Task may take over. `held`: slots that must wait."""

    granted: tuple[Look, ...]
    opened: tuple[Look, ...]
    held: tuple[Look, ...]
    paused: Problem | None


def roll_out(looks: Sequence[Look], wish: Wish) -> Rollout:
    """Decides over slots in the order given."""
    paused = _stopped(looks, wish)
    wanting = [look for look in looks if look.want is not None]
    free = [look for look in wanting if look.want is not None and look.want.free]
    granted, held = _grant([look for look in wanting if look.want is not None and not look.want.free], _room(looks, wish), paused)
    gated = [look for look in looks if look.gate]
    opened = [look for look in gated if paused is None or look.failing or not look.stale]
    return Rollout(
        granted=tuple(free + granted),
        opened=tuple(opened),
        held=tuple(held + [look for look in gated if look not in opened]) if paused else tuple(held),
        paused=paused,
    )


def _stopped(looks: Sequence[Look], wish: Wish) -> Problem | None:
    """An update with too many failures. To pause is the only `failureAction` there is yet, and the first step of any other."""
    failing = [look.failing for look in looks if look.failing is not None]
    stale = sum(1 for look in looks if look.stale)
    if not stale or len(failing) * 100 <= TOLERATED_PERCENT * len(looks):
        return None
    more = f" (and {len(failing) - 1} more)" if len(failing) > 1 else ""
    text = (
        f"the update to version {wish.version} stopped, {stale} of {len(looks)} slots are not touched: {failing[0]}{more}; "
        "correct the spec, or remove the cause: the update goes on once the new tasks stay up"
    )
    return Problem("UpdatePaused", text)


def _room(looks: Sequence[Look], wish: Wish) -> int:
    """How many more replacements may begin. What fails is no longer under way, but until it counts as a crash loop it may yet come up."""
    parallelism = wish.spec.update.parallelism or len(looks)
    under_way = sum(1 for look in looks if look.busy and not look.looping and (look.failing is None or look.want is None))
    return max(0, parallelism - under_way)


def _grant(wanting: Sequence[Look], room: int, paused: Problem | None) -> tuple[list[Look], list[Look]]:
    """What serves least comes first."""
    allowed = [look for look in wanting if look.want is not None and not (paused and look.want.new_version)]
    allowed.sort(key=lambda look: look.want is not None and look.want.serves)
    granted = allowed[:room]
    chosen = {look.slot for look in granted}
    return granted, [look for look in wanting if look.slot not in chosen]
