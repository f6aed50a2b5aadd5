"""Puts control plane, hosts, registry and operator together, and asks them the questions tests ask."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moorage_operator.api import API_VERSION, KINDS

from tests.fleet import BareHost, Bridge, HostSpec
from tests.kube import ControlPlane, Registry, busybox_image
from tests.machine.waiting import eventually
from tests.swarm.manifests import Manifest, node
from tests.swarm.operator import NAMESPACE, OperatorProcess

CRDS = Path(__file__).parents[2] / "crds"
SECRET = "hosts"
SHORT = {kind.KIND.short: kind.KIND for kind in KINDS}


class Swarm:
    """Runs between `start` and `close`. Everything is its own but what the caller hands in."""

    def __init__(self, *, bridge: Bridge, plane: ControlPlane, registry: Registry, environment: Mapping[str, str] | None = None) -> None:
        self.bridge, self.plane, self.registry = bridge, plane, registry
        self.hosts: list[BareHost] = []
        self.operators: list[OperatorProcess] = []
        self._environment = environment

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> Self:
        self.plane.install_crds(CRDS)
        self.plane.kubectl("create", "namespace", NAMESPACE)
        self.plane.kubectl(
            "create", "secret", "generic", SECRET, "-n", NAMESPACE, "--type=kubernetes.io/ssh-auth",
            f"--from-file=ssh-privatekey={self.bridge.key_file}",
        )  # fmt: skip
        self.start_operator()
        return self

    def close(self) -> None:
        for operator in self.operators:
            operator.kill()
        for host in self.hosts:
            host.close()

    # --- its parts

    @property
    def operator(self) -> OperatorProcess:
        return self.operators[-1]

    def start_operator(self, *, wait: bool = True, environment: Mapping[str, str] | None = None) -> OperatorProcess:
        """One more operator process; it stands for election beside those that run."""
        operator = OperatorProcess(
            self.plane.kubeconfig,
            self.plane.folder,
            name=f"operator-{len(self.operators) + 1}",
            environment={**(self._environment or {}), **(environment or {})},
        )
        self.operators.append(operator)
        return operator.start(wait=wait)

    def add_hosts(self, count: int, spec: HostSpec | None = None, *, ready: bool = True, **fields: Any) -> list[BareHost]:
        """Boot hosts and apply their Nodes; `fields` as in manifests.node."""
        made = [self.bridge.host(spec=spec or HostSpec()) for _ in range(count)]
        self.hosts += made
        for host in made:
            self.plane.apply(node(host, **fields))
        if ready:
            for host in made:
                self.wait_node(host.name)
        return made

    def image(self, name: str, **options: Any) -> str:
        """Push a busybox image and return its reference."""
        busybox_image(self.registry, name, **options)
        return f"{self.registry.host}/{name}"

    # --- asking

    def apply(self, *manifests: Manifest) -> None:
        self.plane.kubectl("apply", "-f", "-", input="\n---\n".join(json.dumps(manifest) for manifest in manifests))

    def kubectl(self, *args: str | Path, **options: Any) -> str:
        """What kubectl prints."""
        return str(self.plane.kubectl(*args, **options).stdout)

    # Kinds by their short names. Not by kubectl: tests ask many times a second, and each start of it takes a tenth of a second of CPU.

    def items(self, kind: str, namespace: str = "default") -> list[dict[str, Any]]:
        found = self.plane.request("GET", path_of(kind, namespace))
        assert found.ok, f"{kind} of {namespace} cannot be listed: {found.body.get('message')}"
        items: list[dict[str, Any]] = found.body["items"]
        return items

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """The object, or {} when there is none."""
        found = self.plane.request("GET", f"{path_of(kind, namespace)}/{name}")
        assert found.ok or found.status == 404, f"{kind} {name} cannot be read: {found.body.get('message')}"
        return found.body if found.ok else {}

    def tasks(self, service: str = "", namespace: str = "default") -> list[dict[str, Any]]:
        return [task for task in self.items("stask", namespace) if service in ("", task["spec"]["service"])]

    def states(self, service: str = "", namespace: str = "default") -> Counter[str]:
        return Counter(task.get("status", {}).get("state", "New") for task in self.tasks(service, namespace))

    def condition(self, kind: str, name: str, type_: str = "Ready", namespace: str = "default") -> dict[str, str]:
        """The condition, or {} while there is none."""
        conditions = self.get(kind, name, namespace).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == type_), {})

    def eventually(self, what: str, probe: Callable[[], Any], *, timeout_s: float = 60.0, every_s: float = 0.2) -> Any:
        """As eventually(), with the operator's last words when it does not come true."""
        try:
            return eventually(what, probe, timeout_s=timeout_s, every_s=every_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def wait_node(self, name: str, *, timeout_s: float = 60.0) -> None:
        self.eventually(f"Node {name} is Ready", lambda: self.condition("snode", name).get("status") == "True", timeout_s=timeout_s)

    def wait_running(self, service: str, count: int, *, namespace: str = "default", timeout_s: float = 60.0) -> None:
        """Until exactly so many tasks of the Service run, and none is in any other state."""
        self.eventually(
            f"{count} tasks of {service} run",
            lambda: self.states(service, namespace) == (Counter({"Running": count}) if count else Counter()),
            timeout_s=timeout_s,
        )

    def story(self) -> str:
        """What a person would look at first when something does not come true."""
        listing = self.plane.kubectl("get", "swarm", "-A", "-o", "wide", check=False).stdout
        log = "\n".join(f"--- {operator.log_file.name}\n{operator.log()[-3000:]}" for operator in self.operators)
        return f"{listing}\n{log}"


def path_of(kind: str, namespace: str) -> str:
    """Where the API server keeps the objects of a kind, given by its short name."""
    scope = f"namespaces/{namespace}/" if SHORT[kind].namespaced else ""
    return f"/apis/{API_VERSION}/{scope}{SHORT[kind].plural}"
