"""What a slot reads of its Tasks."""

from __future__ import annotations

from typing import Any

import pytest
from moorage_operator.plan.slot_task import slot_task

from tests.operator.plan.objects import task

REBOOT, CRASH = {"reason": "HostRebooted"}, {"code": 1, "reason": "Exited"}


@pytest.mark.parametrize(
    ("state", "restarts", "exits", "caused"),
    [
        ("Running", 3, [CRASH, REBOOT, REBOOT], 1),
        ("Running", 3, [REBOOT] * 3, 0),
        ("Failed", 3, [CRASH, REBOOT, REBOOT, REBOOT], 0),
        ("Complete", 2, [REBOOT, CRASH, CRASH], 2),
        ("Running", 0, [], 0),
    ],
)
def test_a_reboot_uses_up_no_restart(state: str, restarts: int, exits: list[dict[str, Any]], caused: int) -> None:
    assert slot_task(task(status={"state": state, "restarts": restarts, "lastExits": exits})).restarts == caused
