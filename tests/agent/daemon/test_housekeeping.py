"""What the daemon does now and then, without being asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from moorage_agent import daemon, unused_images
from moorage_agent.paths import Paths

from tests.agent.fake_host import IMAGE, FakeImages, document, task, uid
from tests.agent.operator_end import fake_node
from tests.machine.waiting import eventually


async def test_what_pulls_left_behind_is_removed_though_no_image_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_S", 0.05)
    images = FakeImages(IMAGE)
    images.leavings.append("a download nobody goes on with")
    async with fake_node(Paths(f"{tmp_path}/disk", f"{tmp_path}/run"), images) as node:
        await asyncio.to_thread(eventually, "it is gone", lambda: not images.leavings)
        assert set(node.images.held) == {IMAGE}


async def test_what_could_not_be_tidied_is_tried_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_S", 0.05)
    monkeypatch.setattr(unused_images, "FULL_BELOW", 0.0)
    images = FakeImages(IMAGE)
    images.leavings.append("a download nobody goes on with")
    images.failing.append(OSError("the disk has a bad day"))
    async with fake_node(Paths(f"{tmp_path}/disk", f"{tmp_path}/run"), images):
        await asyncio.to_thread(eventually, "it is gone", lambda: not images.leavings)


async def test_an_image_that_went_in_a_sweep_that_failed_is_pulled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_S", 0.05)
    monkeypatch.setattr(unused_images, "FULL_BELOW", 0.0)
    monkeypatch.setattr(daemon, "TIDY_EVERY_S", float("inf"))
    monkeypatch.setattr(unused_images, "KEPT_S", 0.0)
    images = FakeImages(IMAGE)
    async with fake_node(Paths(f"{tmp_path}/disk", f"{tmp_path}/run"), images) as node:
        operator = await node.connect()
        await operator.greet()
        await operator.push(document(task(1)))
        await operator.until(lambda: operator.tasks[uid(1)].state == "Running")
        images.failing += [OSError("the disk has a bad day")] * 2
        await operator.push(document(revision=2))
        await asyncio.to_thread(eventually, "it is swept", lambda: not images.held and not images.failing)
        await operator.push(document(task(2), revision=3))
        await operator.until(lambda: operator.tasks[uid(2)].state == "Running")
        assert images.pulled == [IMAGE]
