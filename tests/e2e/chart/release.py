"""The chart installed on a control plane, and what a kubelet would run of it: the rendered command, environment and account."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.e2e.chart.helm import CHART, Helm, Object, Values, find, objects
from tests.kube import ControlPlane
from tests.swarm import OperatorProcess, Swarm

NAMESPACE = "moorage-system"
_numbers = itertools.count(1)


class Release:
    """`python` is the one the image would bring."""

    def __init__(self, plane: ControlPlane, python: Path, *, name: str = "moorage", namespace: str = NAMESPACE) -> None:
        self.plane = plane
        self.name = name
        self.namespace = namespace
        self.helm = Helm(plane.folder, plane.kubeconfig)
        self._python = python

    def install(self, values: Values | None = None, *, chart: Path = CHART) -> None:
        """Without waiting: no kubelet makes Pods ready here."""
        self._change("install", values or {}, "--create-namespace", chart=chart)

    def upgrade(self, values: Values | None = None, *, chart: Path = CHART) -> None:
        self._change("upgrade", values or {}, chart=chart)

    def _change(self, verb: str, values: Values, *flags: str, chart: Path) -> None:
        self.helm(verb, self.name, chart, "--namespace", self.namespace, "--wait=hookOnly", *flags, *self.helm.values(values))

    def manifest(self) -> list[Object]:
        return objects(self.helm("get", "manifest", self.name, "-n", self.namespace).stdout)

    def hooks(self) -> list[Object]:
        return objects(self.helm("get", "hooks", self.name, "-n", self.namespace).stdout)

    def operator(self) -> OperatorProcess:
        """What the Deployment's container would be; not started."""
        pod = find(self.manifest(), "Deployment")["spec"]["template"]["spec"]
        assert pod["containers"][0]["command"] == ["python", "-m", "moorage_operator"], "OperatorProcess runs another command"
        return OperatorProcess(
            self._kubeconfig(pod),
            self.plane.folder,
            name=f"operator-{next(_numbers)}",
            python=self._python,
            environment=self._environment(pod),
        )

    def run(self, pod: Object, *more: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """The container of this Pod's spec, to its end; `more` is appended to its command."""
        command = [str(self._python), *pod["containers"][0]["command"][1:], *more]
        kubeconfig = {"KUBECONFIG": str(self._kubeconfig(pod)), "PATH": "/usr/bin:/bin"}
        env = {**kubeconfig, **self._environment(pod), **(environment or {})}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    def guard(self, *more: str) -> subprocess.CompletedProcess[str]:
        """What the pre-delete hook runs."""
        return self.run(find(self.hooks(), "Job")["spec"]["template"]["spec"], *more)

    def _environment(self, pod: Object) -> dict[str, str]:
        return {each["name"]: self._value(each) for each in pod["containers"][0]["env"]}

    def _value(self, variable: Mapping[str, Any]) -> str:
        if "valueFrom" not in variable:
            return str(variable["value"])
        assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
        return self.namespace

    def _kubeconfig(self, pod: Object) -> Path:
        return self.plane.kubeconfig_for(pod["serviceAccountName"], namespace=self.namespace)


class ChartSwarm(Swarm):
    """A swarm whose operator is the chart's, with the rights the chart gives it. Otherwise what Swarm is."""

    def __init__(self, release: Release, values: Values | None = None, **parts: Any) -> None:
        super().__init__(plane=release.plane, **parts)
        self.release = release
        self._values = values

    def start(self) -> Self:
        self.release.install(self._values)
        self.plane.kubectl(
            "create", "secret", "generic", "hosts", "-n", self.release.namespace, "--type=kubernetes.io/ssh-auth",
            f"--from-file=ssh-privatekey={self.bridge.key_file}",
        )  # fmt: skip
        self.plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        self.start_operator()
        return self

    def start_operator(self, *, wait: bool = True, environment: Mapping[str, str] | None = None) -> OperatorProcess:
        assert not environment, "the chart says what the environment is"
        operator = self.release.operator()
        self.operators.append(operator)
        return operator.start(wait=wait)
