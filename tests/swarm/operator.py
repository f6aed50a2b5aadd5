"""The operator as a process of its own, run as users run it, against a given API server."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.machine import Server
from tests.machine.addresses import free_port, own_loopback
from tests.machine.waiting import eventually

NAMESPACE = "moorage-system"


class OperatorProcess:
    """`environment` adds to, or overrides, the settings' variables. Runs from `start` until `stop` or `kill`."""

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        *,
        name: str = "operator",
        python: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        address = own_loopback()
        port = free_port(address)
        self.url = f"http://{address}:{port}"
        self.log_file = folder / f"{name}.log"
        self._python = python or Path(sys.executable)
        self._environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(kubeconfig),
            "MOORAGE_NAMESPACE": NAMESPACE,
            "MOORAGE_HTTP_HOST": address,
            "MOORAGE_HTTP_PORT": str(port),
            **(environment or {}),
        }
        self.server: Server | None = None

    def start(self, *, wait: bool = True) -> OperatorProcess:
        self.server = Server([self._python, "-m", "moorage_operator"], log=self.log_file, env=self._environment)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Until its caches are filled and it stands for election."""
        eventually("the operator is ready", lambda: self._ended() or self.get("/readyz") == 200, timeout_s=60)
        assert self.running, f"the operator ended:\n{self.log()[-4000:]}"

    def stop(self) -> None:
        if self.server is not None and self.server.running:
            self.server.stop(grace_s=20)

    def kill(self) -> None:
        if self.server is not None and self.server.running:
            self.server.kill()

    def pause(self) -> None:
        assert self.server is not None
        self.server.pause()

    def resume(self) -> None:
        assert self.server is not None
        self.server.resume()

    @property
    def running(self) -> bool:
        return self.server is not None and self.server.running

    @property
    def pid(self) -> int:
        assert self.server is not None
        return self.server.pid

    def get(self, path: str) -> int:
        """The HTTP status of one of its own pages; 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metric(self, name: str) -> float:
        """The sum over all labels of one of its metrics."""
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.page("/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name)

    def page(self, path: str) -> str:
        """The text of one of its own pages."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _ended(self) -> bool:
        return not self.running
