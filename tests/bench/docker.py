"""The peer: Docker's engine from Debian's packages, unpacked, with a Swarm of one node and an image imported from the same files."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fleet.links import configure
from tests.machine.debs import environment_of, unpacked
from tests.machine.process import Server
from tests.machine.scratch import scratch_folder
from tests.machine.waiting import eventually

PACKAGES = ("docker.io", "containerd", "runc", "tini", "iptables")


class Docker:
    """No bridge, no iptables, state in folders of its own: nothing of this machine is changed.

    Its containers so have a network namespace of their own with a loopback, as ours have. (With the host's network they start no faster,
    and go three times more slowly.)
    """

    def __init__(self) -> None:
        self.folder = scratch_folder("docker")
        self._root = unpacked(*PACKAGES)
        self._environment = environment_of(self._root)
        path = f"{self._root}/usr/sbin:{self._root}/usr/bin:{os.environ['PATH']}"
        self._environment = {**os.environ, **self._environment, "PATH": path}
        self._server: Server | None = None

    def __enter__(self) -> Self:
        home = self.folder
        self._server = Server(
            ["dockerd", "--data-root", home / "data", "--exec-root", home / "exec", "-H", f"unix://{home}/sock", "--pidfile", home / "pid",
             "--storage-driver", "overlay2", "--iptables=false", "--ip6tables=false", "--bridge=none"],
            log=home / "log",
            env=self._environment,
        )  # fmt: skip
        eventually("dockerd answers", lambda: self._ready(), timeout_s=60)
        self.run("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:0")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.run("swarm", "leave", "--force", check=False)
        if self._server is not None:
            self._server.stop(grace_s=30)
        subprocess.run(["umount", self.folder / "exec/netns/default"], stderr=subprocess.DEVNULL, check=False)
        configure("link delete docker_gwbridge", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *args: str, check: bool = True, stdin: bytes | None = None) -> str:
        command = ["docker", "-H", f"unix://{self.folder}/sock", *args]
        done = subprocess.run(command, env=self._environment, input=stdin, capture_output=True, timeout=120)
        assert not check or done.returncode == 0, f"docker {' '.join(args)}: {done.stderr.decode().strip()}"
        return done.stdout.decode()

    def load(self, root: Path, name: str) -> None:
        """An image of the files below `root`."""
        self.run("import", "-", name, stdin=subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout)

    def apply(self, name: str, image: str, replicas: int, *command: str) -> float:
        """Seconds from the end of `docker service create` to all replicas running. Told to end they end: no grace is waited for."""
        how = ("--stop-signal", "SIGKILL", "--replicas", str(replicas))
        self.run("service", "create", "-d", "--name", name, *how, image, *command)
        started = time.monotonic()
        self._until(name, f"{replicas}/{replicas}")
        return time.monotonic() - started

    def remove(self, name: str) -> float:
        """Seconds from the end of `docker service rm` until no container is left."""
        self.run("service", "rm", name)
        started = time.monotonic()
        eventually("its containers are gone", lambda: not self.run("ps", "-aq").strip(), timeout_s=120, every_s=0.05)
        return time.monotonic() - started

    def _until(self, name: str, replicas: str) -> None:
        def so() -> bool:
            return self.run("service", "ls", "--filter", f"name={name}", "--format", "{{.Replicas}}").strip() == replicas

        eventually(f"{name} has {replicas}", so, timeout_s=120, every_s=0.02)

    def _ready(self) -> bool:
        assert self._server is not None
        assert self._server.running, self._server.log()[-2000:]
        return bool(self.run("version", "--format", "{{.Server.Version}}", check=False).strip())
