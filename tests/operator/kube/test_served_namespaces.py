"""Several lists, each of one namespace, feed one cache."""

from __future__ import annotations

from typing import Any

from moorage_operator.kube.cache import Cache
from moorage_operator.kube.informer import relist
from moorage_operator.kube.object import Key
from moorage_operator.kube.resource import SECRETS, TASKS
from moorage_operator.settings import Settings

from tests.operator.kube.conftest import Server


def task(namespace: str, name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "resourceVersion": str(version)}}


def test_a_list_of_one_namespace_removes_nothing_of_another() -> None:
    cache = Cache(TASKS)
    for namespace, version in (("shop", 1), ("lab", 2)):
        cache.put(task(namespace, "web", version))
    comparison = cache.relist("lab")
    comparison.page([], "5")
    assert comparison.done("5") == [Key("lab", "web")]
    assert cache.keys() == [Key("shop", "web")]


def test_a_list_of_all_namespaces_removes_what_it_lacks() -> None:
    cache = Cache(TASKS)
    cache.put(task("shop", "web", 1))
    comparison = cache.relist()
    comparison.page([], "5")
    assert comparison.done("5") == [Key("shop", "web")]


async def test_two_namespaces_are_listed_into_one_cache(server: Server) -> None:
    await server.api.create(SECRETS, {"metadata": {"namespace": server.namespace, "name": "here"}})
    await server.api.create(SECRETS, {"metadata": {"namespace": "default", "name": f"there-{server.namespace}"}})
    cache = Cache(SECRETS)
    for namespace in (server.namespace, "default"):
        await relist(server.api, cache, namespace=namespace, metadata_only=True)
    assert {Key(server.namespace, "here"), Key("default", f"there-{server.namespace}")} <= set(cache.keys())
    await server.api.delete(SECRETS, Key("default", f"there-{server.namespace}"))


def test_secrets_are_watched_where_the_operator_lives_too() -> None:
    assert Settings(namespace="ops").served == Settings(namespace="ops").secrets_served == ("",)
    chosen = Settings(namespace="ops", watch_namespaces=("shop", "lab", "shop"))
    assert chosen.served == ("shop", "lab")
    assert chosen.secrets_served == ("shop", "lab", "ops")
