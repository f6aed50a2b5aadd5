from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage_agent.paths import Paths

from tests.agent.fake_host import IMAGE, FakeImages
from tests.agent.operator_end import FakeNode, OperatorEnd, fake_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[FakeNode]:
    async with fake_node(Paths(f"{tmp_path}/disk", f"{tmp_path}/run"), FakeImages(IMAGE)) as made:
        yield made


@pytest.fixture
async def operator(node: FakeNode) -> AsyncIterator[OperatorEnd]:
    made = await node.connect()
    await made.greet()
    yield made
    made.close()
