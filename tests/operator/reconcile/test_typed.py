"""A cache seen through its model."""

from __future__ import annotations

import pytest
from moorage_operator.api import Service
from moorage_operator.errors import InvalidSpec
from moorage_operator.kube.cache import Cache
from moorage_operator.kube.object import Key, Obj
from moorage_operator.kube.resource import SERVICES
from moorage_operator.reconcile.typed import Typed


def service(name: str, version: int = 1, *, replicas: object = 1) -> Obj:
    metadata = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"replicas": replicas, "task": {"image": "app:1"}}}


@pytest.fixture
def services() -> Typed[Service]:
    return Typed(Cache(SERVICES), Service)


def test_an_object_that_cannot_be_read_hides_no_other_and_is_named_in_the_log(
    services: Typed[Service], caplog: pytest.LogCaptureFixture
) -> None:
    services.raw.put(service("web"))
    services.raw.put(service("odd", replicas="many"))
    assert [each.metadata.name for each in services] == ["web"]
    with pytest.raises(InvalidSpec, match="Service shop/odd cannot be read by this version of the operator"):
        services.get(Key("shop", "odd"))
    assert services.get(Key("shop", "none")) is None
    [record] = caplog.records
    assert (record.__dict__["kind"], record.__dict__["object"]) == ("Service", "shop/odd")
    assert "spec.replicas" in record.__dict__["error"]


def test_an_object_is_there_again_once_it_can_be_read(services: Typed[Service]) -> None:
    services.raw.put(service("web", replicas="many"))
    assert services.by_uid("uid-web") is None
    services.raw.put(service("web", 2))
    found = services.by_uid("uid-web")
    assert found is not None
    assert found.spec.replicas == 1
