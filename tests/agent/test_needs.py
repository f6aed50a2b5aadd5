from __future__ import annotations

from typing import Any

import pytest
from moorage_agent.errors import HostLacks
from moorage_agent.needs import check_needs
from moorage_agent.protocol import Container, Feature, Resources, Security

from tests.agent.fake_host import task

ALL = ("memory", "cpu", "pids", "SYS_RESOURCE", "seccomp")


@pytest.mark.parametrize(
    ("container", "lacking", "wish"),
    [
        ({"resources": Resources(memory_limit=1 << 20)}, "memory", "limits.memory"),
        ({"resources": Resources(cpu_limit=500)}, "cpu", "limits.cpu"),
        ({"resources": Resources(pids_limit=10)}, "pids", "limits.pids"),
        ({"security": Security(oom_score_adj=-5)}, "SYS_RESOURCE", "oomScoreAdj -5"),
        ({}, "seccomp", "seccomp RuntimeDefault"),
    ],
)
def test_a_need_the_host_cannot_meet_is_named_with_a_remedy(container: dict[str, Any], lacking: str, wish: str) -> None:
    one = task(container=Container(command=("run",), **container))
    check_needs(one, [Feature(name, present=True) for name in ALL])
    with pytest.raises(HostLacks, match=wish) as refused:
        check_needs(one, [Feature(name, present=name != lacking, detail="the reason") for name in ALL])
    assert "the reason" in refused.value.message
    assert ";" in refused.value.message


@pytest.mark.parametrize("security", [Security(seccomp="Unconfined"), Security(privileged=True)])
def test_what_is_not_asked_for_need_not_be_there(security: Security) -> None:
    check_needs(task(container=Container(command=("run",), security=security)), [Feature(name, present=False) for name in ALL])
