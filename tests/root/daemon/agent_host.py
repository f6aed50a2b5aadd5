"""One agent on directories of its own, and an operator's end of its socket, as plain blocking code."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moorage_agent.paths import Paths
from moorage_agent.protocol import (
    PROTOCOL,
    Container,
    Decoder,
    ImageSource,
    ImageSpec,
    NodeReport,
    NodeSpec,
    ResolvedImage,
    TaskReport,
    TaskSpec,
    encode,
    from_wire,
    to_wire,
)

SWARM, NODE = "0d5d1f2e-swarm", "7c1b4f0a-node"
WITHIN_S = 60.0
PING_EVERY_S = 3.0


class AgentHost:
    """Starts, kills and removes daemons. `boot()` makes it another boot: what lived in the old one ended without a word."""

    def __init__(self, home: Path, directory: Path, image: Path, *, python: str = sys.executable) -> None:
        self.image, self.python = image, python
        self.home = directory / "disk/agent" / home.name
        shutil.copytree(home, self.home)
        self.boot_file = directory / "boot_id"
        self.boot_file.write_text(f"{uuid.uuid4()}\n")
        self.paths = Paths(str(directory / "disk"), str(directory / "run"), str(self.boot_file))
        self.log = directory / "agent.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._operators: list[Operator] = []
        self._digest = ""
        self._mounted = False

    def verb(self, *arguments: str) -> list[str]:
        where = ["--root", self.paths.root, "--run", self.paths.run, "--boot-id-file", self.paths.boot_id_file]
        return [self.python, "-I", "-S", "-E", str(self.home), *arguments, *where]

    def start(self) -> None:
        """Start the daemon and wait until it listens."""
        ready, said = os.pipe()
        with self.log.open("ab") as log:
            command = [*self.verb("serve"), "--ready-fd", str(said)]
            self._daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[said])
        os.close(said)
        heard = os.read(ready, 1)
        os.close(ready)
        assert heard, f"the daemon did not start:\n{self.log.read_text()[-4000:]}"

    @property
    def pid(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """End the daemon alone; containers live on."""
        assert self._daemon is not None
        self._daemon.send_signal(signum)
        self._daemon.wait(30)
        self._daemon = None

    def put_disk_on_tmpfs(self, size: str) -> None:
        """Before the first start: a disk that is easily filled."""
        aside = Path(f"{self.paths.root}.aside")
        Path(self.paths.root).rename(aside)
        Path(self.paths.root).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "disk", self.paths.root], check=True)
        self._mounted = True
        shutil.copytree(aside, self.paths.root, dirs_exist_ok=True)

    def power_cut(self) -> None:
        """Everything of this agent stops at one moment and dies unheard; memory is lost, the disk stays, the next boot is another."""
        ours = self._processes()
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in ours:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
        assert self._daemon is not None
        self._daemon.wait(30)
        self._daemon = None
        deadline = time.monotonic() + WITHIN_S
        while self._processes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        subprocess.run(["umount", "-l", self.paths.secrets], check=True)
        shutil.rmtree(self.paths.run)
        self.boot_file.write_text(f"{uuid.uuid4()}\n")

    def first_processes(self) -> set[int]:
        """The first process of every container of this agent, in whatever cgroup it is."""
        found = set()
        for pid in self._processes():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if _is_first(pid) and f"/{self.paths.cgroup_root}" in _text(str(pid), "cgroup"):
                    found.add(pid)
        return found

    @property
    def zygote_pid(self) -> int:
        return next(pid for pid in self._processes() if _text(str(pid), "comm") == "moorage-zygote\n")

    def _processes(self) -> list[int]:
        """The daemon, zygote and shims (their arguments name our directories), and all in cgroups of this agent."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                ours = f"/{self.paths.cgroup_root}" in _text(pid, "cgroup") or f"{self.paths.run}\0" in _text(pid, "cmdline")
                if ours and not _text(pid, "stat").rpartition(")")[2].startswith(" Z"):
                    found.append(int(pid))
        return found

    def connect(self, **claim: Any) -> Operator:
        operator = Operator(self.paths.agent_socket, **claim)
        self._operators.append(operator)
        return operator

    def source(self) -> ImageSource:
        return ImageSource("ArchivePath", path=str(self.image))

    def digest(self, operator: Operator) -> str:
        if not self._digest:
            self._digest = operator.resolve(self.source()).digest
        return self._digest

    def task(self, operator: Operator, *command: str, **changes: Any) -> TaskSpec:
        """A BusyBox task with a new uid."""
        container = changes.pop("container", None) or Container(command=command, stop_grace_s=changes.pop("grace_s", 2.0))
        one = str(uuid.uuid4())
        names = {"namespace": "default", "name": f"web-1-{one[:5]}", "service": "web", "slot": "1", "version": "v1"}
        return TaskSpec(uid=one, container=container, image=ImageSpec(self.digest(operator), self.source()), **{**names, **changes})

    def daemon_log(self) -> str:
        """What daemons started by dial have logged."""
        return Path(self.paths.agent_log).read_text()

    def lines(self, uid: str) -> str:
        """What the task wrote, as its log files hold it."""
        return "".join(path.read_text(errors="replace") for path in sorted(Path(self.paths.task(uid), "log").iterdir()))

    def destroy(self) -> None:
        """Remove everything through the agent; what it leaves is an error of its own."""
        for operator in self._operators:
            operator.close()
        if self._daemon is None or self._daemon.poll() is not None:
            self.start()
        done = subprocess.run([*self.verb("uninstall"), "--yes"], capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{self.log.read_text()[-3000:]}"
        assert self._daemon is not None
        assert self._daemon.wait(30) == 0, self.log.read_text()[-3000:]
        left = [name for name in os.listdir(self.paths.root) if name != "volumes"] if os.path.isdir(self.paths.root) else []
        assert left == []
        assert not os.path.exists(self.paths.run)
        if self._mounted:
            subprocess.run(["umount", "-l", self.paths.root], check=True)
        shutil.rmtree(self.paths.root, ignore_errors=True)


def _is_first(pid: int) -> bool:
    """True for process 1 of a PID namespace below ours. NSpid: proc_pid_status(5)."""
    numbers = next(line for line in _text(str(pid), "status").splitlines() if line.startswith("NSpid:")).split()[1:]
    return len(numbers) > 1 and numbers[-1] == "1"


def _text(pid: str, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(errors="replace")


class Operator:
    """The other end: says hello at once, sends documents with rising revisions, keeps what the agent reports, answers what it needs."""

    def __init__(self, path: str, *, swarm: str = SWARM, node: str = NODE, epoch: int = 1, **claim: Any) -> None:
        self.tasks: dict[str, TaskReport] = {}
        self.history: list[TaskReport] = []
        self.removed: set[str] = set()
        self.values: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.frames: list[dict[str, Any]] = []
        self.swarm, self.node, self.epoch, self.revision = swarm, node, epoch, 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._decoder = Decoder()
        self.hello = self.hear("hello")
        self.revision = int((self.hello.get("bound") or {}).get("revision") or 0)
        self.send({"type": "hello", "protocol": PROTOCOL, "swarmId": swarm, "nodeUid": node, "epoch": epoch, **claim})

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        self._socket.sendall(encode(message, payload))

    def push(self, *tasks: TaskSpec, **more: Any) -> None:
        """Send the next document and wait until it is accepted."""
        self.revision += 1
        spec = NodeSpec(self.swarm, self.node, self.epoch, self.revision, node_name="n1", tasks=tasks, **more)
        self.send({"type": "document", "spec": to_wire(spec)})
        answer = self.hear("accepted", "refused")
        assert answer["type"] == "accepted", answer

    def resolve(self, source: ImageSource) -> ResolvedImage:
        self.send({"type": "resolve", "id": 1, "source": to_wire(source)})
        answer = self.hear("resolved")
        assert "image" in answer, answer
        return from_wire(ResolvedImage, answer["image"])

    def hear(self, *kinds: str) -> dict[str, Any]:
        """The next frame of one of these types; all others are taken note of on the way."""
        found: dict[str, Any] = self._until(lambda: next((frame for frame in self._drain() if frame["type"] in kinds), None), str(kinds))
        return found

    def wait(self, what: str, holds: Callable[[], Any]) -> None:
        """Until what the agent reported makes `holds` true."""
        self._until(lambda: (self._drain(), holds())[1], what)

    def wait_state(self, state: str, *tasks: TaskSpec) -> None:
        self.wait(f"{state}: {[task.name for task in tasks]}", lambda: all(self.state(task) == state for task in tasks))

    def state(self, task: TaskSpec) -> str:
        return self.tasks[task.uid].state if task.uid in self.tasks else ""

    def close(self) -> None:
        self._socket.close()

    def _until(self, look: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + WITHIN_S
        while True:
            found = look()
            if found:
                return found
            assert time.monotonic() < deadline, f"never heard {what}; tasks: {self.tasks}"
            self._socket.settimeout(PING_EVERY_S)
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                self.send({"type": "ping", "at": time.monotonic()})
                continue
            if not data:
                raise ConnectionResetError(f"the agent closed the connection before {what}; frames: {self.frames}")
            for message, _ in self._decoder.feed(data):
                self._take(message)

    def _drain(self) -> list[dict[str, Any]]:
        frames, self.frames = self.frames, []
        return frames

    def _take(self, message: dict[str, Any]) -> None:
        self.frames.append(message)
        if message["type"] == "need":
            self._answer(message["keys"])
        elif message["type"] == "report":
            report = from_wire(NodeReport, message["report"])
            if report.full:
                self.tasks.clear()
            self.tasks.update({task.uid: task for task in report.tasks})
            self.history += report.tasks
            for uid in report.removed:
                self.tasks.pop(uid, None)
            self.removed.update(report.removed)

    def _answer(self, keys: list[str]) -> None:
        self.asked += keys
        for key in keys:
            if key in self.values:
                self.send({"type": "value", "key": key}, self.values[key])
            else:
                self.send({"type": "value", "key": key, "error": {"code": "NotFound", "message": f"{key} does not exist"}})
