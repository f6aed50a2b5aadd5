"""A real Kubernetes control plane of the bench's own: etcd, API server, controller manager, and the faults they can be put through."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kube import arguments
from tests.kube.binaries import binary
from tests.kube.certificates import Authority
from tests.kube.client import AdminClient, Answer
from tests.kube.crds import install_crds
from tests.kube.kubeconfig import by_certificate, by_token, write_kubeconfig
from tests.kube.settings import prepare
from tests.machine.process import Server
from tests.machine.scratch import scratch_folder
from tests.machine.waiting import eventually

Manifest = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]


class ControlPlane:
    """Runs between `start` and `close` (or as a context manager), on an address of its own, in a folder of its own.

    The API server listens on `address`: an own loopback address unless hosts of a bridge must reach it. `names` are further names its
    certificate holds. RBAC is on; `kubeconfig` is the administrator's.
    """

    def __init__(self, *, address: str | None = None, names: tuple[str, ...] = (), api_flags: tuple[str, ...] = ()) -> None:
        self.folder = scratch_folder("kube")
        self.authority = Authority(self.folder)
        self.settings, self._admin = prepare(self.folder, self.authority, address, names, api_flags)
        self.url = self.settings.api_url
        self.kubeconfig = write_kubeconfig(
            self.folder / "admin.kubeconfig", server=self.url, authority=self.authority.certificate, user=by_certificate(self._admin)
        )
        self._client = AdminClient(self.url, self.authority.certificate, self._admin)
        self._servers: dict[str, Server] = {}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def start(self) -> Self:
        try:
            self.start_etcd()
            self.start_api()
            self.start_controllers()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End everything; nothing of this control plane is kept."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            if server := self._servers.pop(name, None):
                server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- asking it

    def kubectl(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002 - the word of subprocess.run
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """kubectl as administrator, or by another `kubeconfig`. Raises AssertionError with its words when `check` and it failed."""
        command = [str(binary("kubectl")), f"--kubeconfig={kubeconfig or self.kubeconfig}", *map(str, args)]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout_s)
        assert not check or done.returncode == 0, f"kubectl {' '.join(map(str, args))}: exit code {done.returncode}: {done.stderr.strip()}"
        return done

    def apply(self, manifest: Manifest) -> None:
        """`kubectl apply` of YAML text, a file or folder, one object or several."""
        if isinstance(manifest, Path):
            self.kubectl("apply", "-f", manifest)
        else:
            self.kubectl("apply", "-f", "-", input=as_text(manifest))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """The object, or None when there is none."""
        found = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found").stdout
        answer: dict[str, Any] | None = json.loads(found) if found.strip() else None
        return answer

    def request(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        """One raw request as administrator; options as in AdminClient.request."""
        return self._client.request(method, path, body, **options)

    def connection(self) -> http.client.HTTPSConnection:
        """A connection as administrator, without time limit."""
        return self._client.connection()

    def install_crds(self, folder: Path) -> None:
        """Every definition in `folder`, strictly validated, established and really served."""
        install_crds(self, folder)

    def kubeconfig_for(self, account: str, *, namespace: str = "default", valid_s: int = 3600) -> Path:
        """A kubeconfig with a fresh token of an existing service account."""
        token = self.kubectl("create", "token", account, "-n", namespace, f"--duration={valid_s}s").stdout.strip()
        path = self.folder / f"{namespace}.{account}.kubeconfig"
        return write_kubeconfig(path, server=self.url, authority=self.authority.certificate, user=by_token(token), namespace=namespace)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Until the API server says so, its hooks included."""
        eventually("the API server is ready", lambda: self._answers("/readyz"), timeout_s=timeout_s)

    def log(self, server: str) -> str:
        """What etcd, kube-apiserver or kube-controller-manager wrote."""
        return (self.folder / f"{server}.log").read_text(errors="replace")

    # --- its servers and their faults

    def start_etcd(self) -> None:
        self._servers["etcd"] = self._serve("etcd", arguments.etcd_arguments(self.settings))

    def start_api(self) -> None:
        # The collector would otherwise run all the time: the live heap is small, the machine's memory is not.
        self._servers["kube-apiserver"] = self._serve("kube-apiserver", arguments.api_server_arguments(self.settings), {"GOGC": "400"})
        self._while_running("kube-apiserver", "the API server is ready", lambda: self._answers("/readyz"))

    def start_controllers(self) -> None:
        self._servers["kube-controller-manager"] = self._serve(
            "kube-controller-manager", arguments.controller_manager_arguments(self.settings)
        )
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._while_running("kube-controller-manager", "the default service account exists", lambda: self._answers(account))

    # Servers are stopped at once, as by a crash: an orderly end would wait for every open watch.

    def stop_etcd(self) -> None:
        self._servers.pop("etcd").kill()

    def stop_api(self) -> None:
        self._servers.pop("kube-apiserver").kill()

    def stop_controllers(self) -> None:
        self._servers.pop("kube-controller-manager").kill()

    def restart_etcd(self) -> None:
        self.stop_etcd()
        self.start_etcd()
        self.wait_ready()

    def restart_api(self) -> None:
        self.stop_api()
        self.start_api()

    def restart_controllers(self) -> None:
        self.stop_controllers()
        self.start_controllers()

    def pause_api(self) -> None:
        """Connections stay open, nothing is answered."""
        self._servers["kube-apiserver"].pause()

    def resume_api(self) -> None:
        self._servers["kube-apiserver"].resume()

    def snapshot(self) -> Path:
        """All that etcd holds now. Its files are copied while it is frozen: to etcd as if the machine had crashed at that moment."""
        copy = self.folder / f"snapshot-{time.time_ns()}"
        etcd = self._servers["etcd"]
        etcd.pause()
        try:
            shutil.copytree(self.settings.etcd_data, copy)
        finally:
            etcd.resume()
        return copy

    def restore(self, snapshot: Path) -> None:
        """Back to `snapshot`, resource versions included, in the order an administrator must: API server down, data back, all up."""
        self.stop_controllers()
        self.stop_api()
        self.stop_etcd()
        shutil.rmtree(self.settings.etcd_data)
        shutil.copytree(snapshot, self.settings.etcd_data)
        self.start()

    def pid(self, server: str) -> int:
        return self._servers[server].pid

    def _serve(self, name: str, options: Sequence[str], environment: Mapping[str, str] | None = None) -> Server:
        return Server([binary(name), *options], log=self.folder / f"{name}.log", env={"PATH": "/usr/bin:/bin", **(environment or {})})

    def _answers(self, path: str) -> bool:
        try:
            return self._client.request("GET", path, timeout_s=5).ok
        except OSError:
            return False

    def _while_running(self, name: str, what: str, probe: Callable[[], bool]) -> None:
        def alive_and_so() -> bool:
            assert self._servers[name].running, f"{name} ended at once: {self.log(name)[-1500:]}"
            return probe()

        eventually(what, alive_and_so, timeout_s=90)


def as_text(manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(manifest, str):
        return manifest
    objects = [manifest] if isinstance(manifest, Mapping) else list(manifest)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
