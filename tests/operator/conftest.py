"""An API server in memory, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.clock import SystemClock

from tests.operator.fakeapi import FakeApi


@pytest.fixture
async def fake() -> AsyncIterator[FakeApi]:
    async with FakeApi() as fake:
        yield fake


@pytest.fixture
async def api(fake: FakeApi) -> AsyncIterator[KubeApi]:
    async with KubeApi(fake.credentials, clock=SystemClock()) as api:
        yield api
