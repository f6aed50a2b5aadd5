"""What the daemon does now and then, without being asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from moorage_agent import daemon
from moorage_agent.paths import Paths

from tests.agent.fake_host import IMAGE, FakeImages
from tests.agent.operator_end import fake_node
from tests.machine.waiting import eventually


async def test_what_pulls_left_behind_is_removed_though_no_image_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_S", 0.05)
    images = FakeImages(IMAGE)
    images.leavings.append("a download nobody goes on with")
    async with fake_node(Paths(f"{tmp_path}/disk", f"{tmp_path}/run"), images) as node:
        await asyncio.to_thread(eventually, "it is gone", lambda: not images.leavings)
        assert set(node.images.held) == {IMAGE}
