"""helm uninstall: refused while something needs the operator, with the way out for hosts that are gone; the CRDs stay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.chart.helm import CHART, find
from tests.e2e.chart.release import ChartSwarm, Release
from tests.fleet import Bridge
from tests.kube import ControlPlane, Registry
from tests.machine import Server
from tests.swarm import service

pytestmark = pytest.mark.e2e

JOBS = "/apis/batch/v1/namespaces/moorage-system/jobs"
GUARD = f"{JOBS}/moorage-uninstall-guard"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SLEEP = ("sleep", "3600")


@pytest.fixture
def own(bridge: Bridge, registry: Registry, image_python: Any) -> Iterator[ChartSwarm]:
    """A swarm of one host and the chart, to be uninstalled."""
    plane = ControlPlane()
    with plane, ChartSwarm(Release(plane, image_python), bridge=bridge, registry=registry) as swarm:
        swarm.add_hosts(1)
        yield swarm


def test_an_empty_swarm_is_uninstalled_and_its_crds_stay(own: ChartSwarm) -> None:
    own.kubectl("delete", f"snode/{own.hosts[0].name}", "--timeout=60s")
    helm = uninstall(own)
    answer_the_hook(own, own.release.guard().returncode)
    assert helm.wait(60) == 0, helm.log()

    assert own.plane.get("deployment", "moorage", "moorage-system") is None
    assert len([each for each in own.plane.request("GET", CRDS).body["items"] if each["spec"]["group"] == "moorage.dev"]) == 5
    identity = own.plane.get("secret", "moorage-swarm", "moorage-system")
    assert identity is not None, "a chart installed again must know its hosts again"

    own.operator.stop()
    own.release.install()
    assert own.plane.get("secret", "moorage-swarm", "moorage-system") == identity


def test_a_release_of_another_name_takes_the_crds_over_when_told_to(own: ChartSwarm) -> None:
    own.release.helm("uninstall", "moorage", "-n", "moorage-system", "--no-hooks")
    assert own.plane.get("snode", own.hosts[0].name), "objects stay with their kinds"
    install = ("install", "blue", CHART, "-n", "moorage-system", "--wait=hookOnly")
    assert "invalid ownership metadata" in own.release.helm(*install, check=False).stderr
    own.release.helm(*install, "--take-ownership")
    assert own.plane.get("deployment", "blue-moorage", "moorage-system")


def test_a_swarm_in_use_is_not_uninstalled(own: ChartSwarm) -> None:
    run_something(own)
    refused = own.release.guard()
    assert refused.returncode == 1
    assert refused.stdout.startswith("not uninstalled: 1 Service (default/web), 2 Tasks (default/web-1-")
    assert f"and 1 Node ({own.hosts[0].name}) exist" in refused.stdout
    assert "kubectl delete sstk,ssvc --all --all-namespaces" in refused.stdout
    assert "--release-finalizers" not in refused.stdout

    helm = uninstall(own)
    answer_the_hook(own, refused.returncode)
    assert helm.wait(60) != 0
    assert "moorage-uninstall-guard" in helm.log()
    assert still_installed(own)
    own.wait_running("web", 2)
    assert [process for process in own.hosts[0].processes() if process.command == "sleep 3600"]

    commands = [line.split()[1:] for line in refused.stdout.splitlines() if line.strip().startswith("kubectl ")]
    assert len(commands) == 2
    for command in commands:
        own.kubectl(*command)
    again = uninstall(own)
    answer_the_hook(own, own.release.guard().returncode)
    assert again.wait(60) == 0, again.log()
    assert not still_installed(own)


def test_helm_waits_for_the_guard_and_takes_nothing_away_before(own: ChartSwarm) -> None:
    helm = uninstall(own, "--timeout=4s")
    assert helm.wait(60) != 0
    assert own.plane.request("GET", GUARD).ok
    assert still_installed(own)


def test_a_host_that_is_gone_is_let_go_by_the_documented_command(own: ChartSwarm) -> None:
    run_something(own)
    host = own.hosts[0]
    host.cut()
    own.kubectl("delete", "ssvc/web", "--wait=false")
    own.kubectl("delete", f"snode/{host.name}", "--wait=false")
    own.eventually("only what waits for the host is left", lambda: not own.items("ssvc") and all_deleting(own))
    time.sleep(2)
    stuck = own.release.guard()
    assert stuck.returncode == 1
    line = next(line for line in stuck.stdout.splitlines() if "--release-finalizers" in line)
    assert line.strip() == f"kubectl exec -n moorage-system deploy/moorage -- python -m moorage_operator {' '.join(line.split()[-2:])}"

    pod = find(own.release.manifest(), "Deployment")["spec"]["template"]["spec"]
    released = own.release.run(pod, *line.split()[-2:])
    assert released.returncode == 0, released.stdout + released.stderr
    assert "if one of these hosts still lives, its containers run on" in released.stdout
    assert f"{host.name} ({host.address})" in released.stdout
    assert "nothing needs the operator" in released.stdout
    assert not own.items("stask")
    assert not own.items("snode")

    helm = uninstall(own)
    answer_the_hook(own, own.release.guard().returncode)
    assert helm.wait(60) == 0, helm.log()


def test_what_is_not_being_deleted_is_not_let_go(own: ChartSwarm) -> None:
    run_something(own)
    pod = find(own.release.manifest(), "Deployment")["spec"]["template"]["spec"]
    done = own.release.run(pod, "uninstall-guard", "--release-finalizers")
    assert done.returncode == 1
    own.wait_running("web", 2)
    assert all("moorage.dev/task" in task["metadata"]["finalizers"] for task in own.tasks("web"))
    assert own.condition("snode", own.hosts[0].name)["status"] == "True"


def run_something(swarm: ChartSwarm) -> None:
    image = {"registry": {"reference": swarm.image("busybox:1"), "insecure": True}}
    swarm.apply({"apiVersion": "moorage.dev/v1alpha1", "kind": "Image", "metadata": {"name": "app", "namespace": "default"}, "spec": image})
    swarm.apply(service("web", "image/app", *SLEEP, replicas=2, task={"stopGracePeriod": "1s"}))
    swarm.wait_running("web", 2)


def all_deleting(swarm: ChartSwarm) -> bool:
    return all("deletionTimestamp" in each["metadata"] for each in [*swarm.items("stask"), *swarm.items("snode")])


def uninstall(swarm: ChartSwarm, *flags: str) -> Server:
    """helm, waiting for its hook."""
    return swarm.release.helm.start("uninstall", "moorage", "-n", "moorage-system", "--timeout=60s", *flags)


def answer_the_hook(swarm: ChartSwarm, code: int) -> None:
    """What a kubelet and the Job controller would report of the guard's Pod."""
    swarm.eventually("helm runs its hook", lambda: (job := swarm.plane.request("GET", GUARD)).ok and not job.body["status"])
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    verdicts = ("SuccessCriteriaMet", "Complete") if code == 0 else ("FailureTarget", "Failed")
    conditions = [{"type": each, "status": "True", "reason": "Guard", "lastTransitionTime": now} for each in verdicts]
    counted = {"succeeded": 1, "completionTime": now} if code == 0 else {"failed": 1}
    status = {"startTime": now, "conditions": conditions, **counted}
    answer = swarm.plane.request("PATCH", f"{GUARD}/status", {"status": status}, content_type="application/merge-patch+json")
    assert answer.ok, answer.body


def still_installed(swarm: ChartSwarm) -> bool:
    kinds = ("deployment", "serviceaccount", "rolebinding")
    return all(swarm.plane.get(kind, "moorage-operator" if kind == "rolebinding" else "moorage", "moorage-system") for kind in kinds)
