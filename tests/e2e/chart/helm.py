"""The chart, rendered and installed by a real helm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.kube import binary
from tests.machine import Server

CHART = Path(__file__).parents[3] / "charts" / "moorage"
Object = dict[str, Any]
Values = Mapping[str, Any]


class Helm:
    """helm with a home of its own in `folder`; `kubeconfig` is the administrator's, or nothing where only rendering is asked for."""

    def __init__(self, folder: Path, kubeconfig: Path | None = None) -> None:
        self._folder = folder
        self._kubeconfig = kubeconfig

    def __call__(self, *args: str | Path, check: bool = True, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Raises AssertionError with helm's words when `check` and it failed."""
        command = self._command(args)
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=timeout_s)
        assert not check or done.returncode == 0, f"helm {args[0]}: exit code {done.returncode}: {done.stderr.strip()[-3000:]}"
        return done

    def start(self, *args: str | Path) -> Server:
        """A helm that waits for something; its words are in `.log()`."""
        return Server(self._command(args), log=self._folder / f"helm-{args[0]}.log", env=self._environment())

    def render(self, values: Values | None = None, *, release: str = "moorage", namespace: str = "moorage-system") -> list[Object]:
        """Everything the chart makes of these values, hooks included."""
        done = self("template", release, CHART, "--namespace", namespace, "--kube-version=1.37.0", *self.values(values or {}))
        return objects(done.stdout)

    def values(self, values: Values) -> list[str]:
        file = self._folder / "values.json"
        file.write_text(json.dumps(values))
        return [f"--values={file}"]

    def _command(self, args: Iterable[str | Path]) -> list[str]:
        return [str(binary("helm")), *map(str, args)]

    def _environment(self) -> dict[str, str]:
        home = {f"HELM_{name}_HOME": str(self._folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        return {"PATH": "/usr/bin:/bin", "HOME": str(self._folder), "KUBECONFIG": str(self._kubeconfig or "/nonexistent"), **home}


def objects(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def find(found: Iterable[Object], kind: str, name: str = "", namespace: str = "") -> Object:
    """The one object of that kind, and name and namespace where given."""
    matching = [
        each
        for each in found
        if each["kind"] == kind and name in ("", each["metadata"]["name"]) and namespace in ("", each["metadata"].get("namespace", ""))
    ]
    assert len(matching) == 1, f"{len(matching)} objects of kind {kind} named {name or 'anything'}"
    return matching[0]
