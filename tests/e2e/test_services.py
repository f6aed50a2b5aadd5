"""From kubectl to processes on hosts and back: what users do every day."""

from __future__ import annotations

import pytest

from tests.fleet import BareHost
from tests.swarm import Swarm, service, stack

pytestmark = pytest.mark.e2e

SLEEP = ("sleep", "3600")


def commands(host: BareHost, marker: str) -> list[str]:
    """Processes of a host whose command line holds the marker."""
    return [process.command for process in host.processes() if marker in process.command and "moorage_agent" not in process.command]


def running(swarm: Swarm, marker: str) -> int:
    return sum(len(commands(host, marker)) for host in swarm.hosts)


def test_a_service_runs_spread_over_the_hosts_scales_and_goes(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, "sleep", "36001", namespace=namespace, replicas=3))
    swarm.wait_running("web", 3, namespace=namespace)
    assert [len(commands(host, "sleep 36001")) for host in swarm.hosts] == [1, 1, 1]

    swarm.kubectl("scale", "ssvc/web", "--replicas=5", "-n", namespace)
    swarm.wait_running("web", 5, namespace=namespace)
    assert running(swarm, "sleep 36001") == 5

    swarm.kubectl("scale", "ssvc/web", "--replicas=1", "-n", namespace)
    swarm.wait_running("web", 1, namespace=namespace)
    assert running(swarm, "sleep 36001") == 1

    swarm.kubectl("delete", "ssvc/web", "-n", namespace)
    swarm.wait_running("web", 0, namespace=namespace)
    assert running(swarm, "sleep 36001") == 0


def test_a_stack_brings_its_services_and_takes_them_along(swarm: Swarm, namespace: str, app: str) -> None:
    shop = stack("shop", service("web", app, *SLEEP, replicas=2), service("agent", app, *SLEEP, mode="Global"), namespace=namespace)
    swarm.apply(shop)
    swarm.kubectl("wait", "sstk/shop", "--for=condition=Ready", "--timeout=60s", "-n", namespace)
    assert swarm.states(namespace=namespace) == {"Running": 5}

    swarm.apply(stack("shop", service("web", app, *SLEEP, replicas=2), namespace=namespace))
    swarm.wait_running("shop-agent", 0, namespace=namespace)
    assert len(swarm.tasks("shop-web", namespace)) == 2

    swarm.kubectl("delete", "sstk/shop", "-n", namespace)
    swarm.eventually("nothing of the Stack is left", lambda: not swarm.tasks(namespace=namespace))


def test_what_kubectl_scale_set_lasts_until_the_stack_itself_says_otherwise(swarm: Swarm, namespace: str, app: str) -> None:
    def applied(replicas: int, value: str) -> None:
        swarm.apply(
            stack(
                "shop", service("web", app, *SLEEP, replicas=replicas, task={"env": [{"name": "A", "value": value}]}), namespace=namespace
            )
        )

    applied(1, "1")
    swarm.wait_running("shop-web", 1, namespace=namespace)
    swarm.kubectl("scale", "ssvc/shop-web", "--replicas=3", "-n", namespace)
    swarm.wait_running("shop-web", 3, namespace=namespace)
    applied(1, "2")
    swarm.eventually("the new version runs everywhere", lambda: _updated(swarm, "shop-web", namespace) == 3)
    applied(2, "2")
    swarm.wait_running("shop-web", 2, namespace=namespace)


def test_a_new_version_replaces_one_task_after_the_other(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, *SLEEP, namespace=namespace, replicas=3))
    swarm.wait_running("web", 3, namespace=namespace)
    before = {task["metadata"]["uid"] for task in swarm.tasks("web", namespace)}

    swarm.apply(service("web", app, "sleep", "7200", namespace=namespace, replicas=3))
    least = 3

    def replaced() -> bool:
        nonlocal least
        ready = sum(_is_ready(task) for task in swarm.tasks("web", namespace))
        least = min(least, ready)
        now = {task["metadata"]["uid"] for task in swarm.tasks("web", namespace)}
        return not now & before and ready == 3

    swarm.eventually("all tasks are new and ready", replaced)
    assert least >= 2
    assert running(swarm, "sleep 7200") == 3


def test_a_bad_image_touches_no_running_task_and_its_correction_heals(swarm: Swarm, namespace: str, app: str, image: str) -> None:
    swarm.apply(service("web", app, *SLEEP, namespace=namespace, replicas=2))
    swarm.wait_running("web", 2, namespace=namespace)
    before = {task["metadata"]["uid"] for task in swarm.tasks("web", namespace)}

    swarm.apply(service("web", image.replace(":1", ":no-such-tag"), *SLEEP, namespace=namespace, replicas=2))
    swarm.eventually(
        "the reason is said",
        lambda: (
            "no-such-tag" in swarm.condition("ssvc", "web", "Progressing", namespace).get("message", "")
            or "no-such-tag" in str(swarm.get("ssvc", "web", namespace)["status"])
        ),
    )
    assert {task["metadata"]["uid"] for task in swarm.tasks("web", namespace)} == before

    swarm.apply(service("web", app, "sleep", "4000", namespace=namespace, replicas=2))
    swarm.eventually("the correction is rolled out", lambda: _updated(swarm, "web", namespace) == 2)


def test_restart_token_and_suspend(swarm: Swarm, namespace: str, app: str) -> None:
    swarm.apply(service("web", app, *SLEEP, namespace=namespace, replicas=2))
    swarm.wait_running("web", 2, namespace=namespace)
    before = {task["metadata"]["uid"] for task in swarm.tasks("web", namespace)}
    swarm.kubectl("patch", "ssvc/web", "-n", namespace, "--type=merge", "-p", '{"spec":{"restartToken":"now"}}')
    swarm.eventually("both were replaced", lambda: not {t["metadata"]["uid"] for t in swarm.tasks("web", namespace)} & before)
    swarm.wait_running("web", 2, namespace=namespace)
    swarm.kubectl("patch", "ssvc/web", "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    swarm.wait_running("web", 0, namespace=namespace)
    swarm.kubectl("patch", "ssvc/web", "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    swarm.wait_running("web", 2, namespace=namespace)


def test_applying_the_same_again_changes_nothing(swarm: Swarm, namespace: str, app: str) -> None:
    manifest = service("web", app, *SLEEP, namespace=namespace, replicas=2)
    swarm.apply(manifest)
    swarm.wait_running("web", 2, namespace=namespace)
    swarm.kubectl("wait", "ssvc/web", "--for=condition=Ready", "--timeout=30s", "-n", namespace)
    versions = {task["metadata"]["uid"]: task["metadata"]["resourceVersion"] for task in swarm.tasks("web", namespace)}
    swarm.apply(manifest)
    assert swarm.plane.kubectl("diff", "-f", "-", input=__import__("json").dumps(manifest), check=False).returncode == 0
    swarm.eventually(
        "nothing was written",
        lambda: {task["metadata"]["uid"]: task["metadata"]["resourceVersion"] for task in swarm.tasks("web", namespace)} == versions,
        timeout_s=3,
    )


def _is_ready(task: dict[str, object]) -> bool:
    conditions = task.get("status", {}).get("conditions", [])  # type: ignore[attr-defined]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _updated(swarm: Swarm, name: str, namespace: str) -> int:
    """Ready tasks, if all of them are of one version and none is on its way out."""
    tasks = swarm.tasks(name, namespace)
    if len({task["spec"]["version"] for task in tasks}) != 1:
        return -1
    return sum(_is_ready(task) for task in tasks)
