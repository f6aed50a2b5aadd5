"""What a host that asks for a value is told when there is none: it stands in the status of the tasks that wait for it."""

from __future__ import annotations

import pytest
from moorage_operator.errors import InvalidSpec
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.client import KubeApi
from moorage_operator.kube.resource import CONFIG_MAPS, NAMESPACES, SECRETS
from moorage_operator.plan.container_data import SECRET, DataObject
from moorage_operator.reconcile.data import Data
from moorage_operator.reconcile.swarm import Swarm

from tests.operator.fakeapi import FakeApi


async def test_a_missing_value_is_named_with_what_to_do(fake: FakeApi, api: KubeApi) -> None:
    fake.store.create(NAMESPACES, {"metadata": {"name": "shop"}})
    fake.store.create(SECRETS, {"metadata": {"namespace": "shop", "name": "db"}, "data": {}})
    data = Data(api, {"Secret": Cache(SECRETS), "ConfigMap": Cache(CONFIG_MAPS)}, Swarm("swarm", b"k" * 32))
    with pytest.raises(InvalidSpec, match="Secret mail does not exist in namespace shop: create it"):
        await data.entry(DataObject(SECRET, "shop", "mail"), "password", digest=None)
    with pytest.raises(InvalidSpec, match="Secret db in namespace shop has no key password: add it, or change what refers to it"):
        await data.entry(DataObject(SECRET, "shop", "db"), "password", digest=None)
