"""A day in the life of an operator: whatever needs a right of it, in one namespace; and what it was refused."""

from __future__ import annotations

import re

from tests.e2e.chart.release import ChartSwarm
from tests.swarm import service, stack


def play(swarm: ChartSwarm, namespace: str) -> None:
    """A Stack with data and a bare image: applied, its data changed, one Service taken out, all removed."""
    image = swarm.image("busybox:1")
    app = {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Image",
        "metadata": {"name": "app", "namespace": namespace},
        "spec": {"registry": {"reference": image, "insecure": True}},
    }
    swarm.kubectl("create", "secret", "generic", "token", "-n", namespace, "--from-literal=token=abc")
    swarm.kubectl("create", "configmap", "conf", "-n", namespace, "--from-literal=conf=1")
    data = {
        "stopGracePeriod": "1s",
        "secrets": [{"target": "token", "secretRef": {"name": "token", "key": "token"}}],
        "configs": [{"target": "/conf", "configMapRef": {"name": "conf", "key": "conf"}}],
    }
    web = service("web", "image/app", "sleep", "3600", replicas=2, task=data)
    # A registry that speaks plain HTTP is not asked for a bare image: its Image is made, and says so.
    bare = service("bare", image, "sleep", "3600")
    swarm.apply(app, stack("shop", web, bare, namespace=namespace))
    swarm.wait_running("shop-web", 2, namespace=namespace)
    swarm.eventually("the bare image got an Image", lambda: len(swarm.items("simg", namespace)) == 2)

    before = {task["metadata"]["uid"] for task in swarm.tasks("shop-web", namespace)}
    swarm.kubectl("patch", "configmap/conf", "-n", namespace, "--type=merge", "-p", '{"data": {"conf": "2"}}')
    swarm.eventually("both were replaced", lambda: not before & {t["metadata"]["uid"] for t in swarm.tasks("shop-web", namespace)})
    swarm.wait_running("shop-web", 2, namespace=namespace)

    swarm.apply(stack("shop", web, namespace=namespace))
    swarm.eventually("the other Service is gone", lambda: len(swarm.items("ssvc", namespace)) == 1)
    swarm.kubectl("delete", "sstk/shop", "-n", namespace)
    swarm.eventually("nothing of the Stack is left", lambda: not swarm.tasks(namespace=namespace))


def meet_a_host(swarm: ChartSwarm) -> None:
    """A host whose key is trusted on first use: the operator writes it into the Node, and says so in an Event in namespace default."""
    (host,) = swarm.add_hosts(1, ssh={"hostKeys": [], "hostKeyPolicy": "TrustOnFirstUse"})
    about = f"involvedObject.name={host.name},reason=HostKeysPinned"
    swarm.eventually(
        "it is said", lambda: "trusted on first use" in swarm.kubectl("get", "events", f"--field-selector={about}", "-o", "wide")
    )
    swarm.kubectl("delete", f"snode/{host.name}", "--timeout=60s")


def forbidden_calls(swarm: ChartSwarm) -> dict[str, str]:
    """Calls that the API server answered with 403, as the operator counts them."""
    lines = swarm.operator.page("/metrics").splitlines()
    counted = dict(line.rsplit(" ", 1) for line in lines if line.startswith("moorage_api_calls_total{"))
    assert any('code="200"' in labels for labels in counted)
    return {labels: count for labels, count in counted.items() if re.search('code="40[13]"', labels)}
