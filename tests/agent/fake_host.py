"""A host in memory that behaves: containers whose program is named in argv, images that can be pulled, a clock that is told the time.

Programs: run · exit CODE · deaf (ignores all but KILL) · absent (cannot be started) · ill (runs; its health check fails)
· stuck (runs; its health check does not answer in time)
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage_agent.errors import AgentError, ImageError, Interrupted, StartFailed
from moorage_agent.images.store import Image
from moorage_agent.protocol import Container, Exit, Feature, ImageConfig, ImageSource, ImageSpec, NodeSpec, Restart, TaskSpec
from moorage_agent.runtime.launch import Launch
from moorage_agent.runtime.runtime import ContainerState, ExecResult, Started
from moorage_agent.task_state import Moment, Record

BOOT = "11111111-1111-1111-1111-111111111111"
IMAGE = "sha256:" + "a" * 64


class Died(BaseException):
    """The daemon died here."""


class Doom:
    """When armed, the next effect on the world outside is the daemon's last: it dies just before it, or just after."""

    def __init__(self) -> None:
        self.effects_left: int | None = None
        self.after = False

    def __enter__(self) -> None:
        if self._strikes(after=False):
            raise Died

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._strikes(after=True):
            raise Died

    def _strikes(self, *, after: bool) -> bool:
        if self.effects_left is None or self.after != after:
            return False
        self.effects_left -= 1
        if self.effects_left >= 0:
            return False
        self.effects_left = None
        return True


def uid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def task(number: int = 1, *program: str, **changes: Any) -> TaskSpec:
    """A task with good defaults; `program` as above."""
    container = changes.pop("container", None) or Container(
        command=program or ("run",), stop_grace_s=changes.pop("grace_s", 10.0), restart=changes.pop("restart", Restart())
    )
    image = ImageSpec(changes.pop("digest", IMAGE), ImageSource("Registry", reference="registry.example/app:1"))
    names = {"namespace": "default", "name": f"web-{number}-x", "service": "web", "slot": str(number), "version": "v1"}
    return TaskSpec(uid=uid(number), container=container, image=image, **{**names, **changes})


def document(*tasks: TaskSpec, revision: int = 1, epoch: int = 1, **changes: Any) -> NodeSpec:
    return NodeSpec("swarm", "node", epoch, revision, node_name="n1", tasks=tasks, **changes)


class FakeClock:
    def __init__(self) -> None:
        self.time, self.boot_id = 1000.0, BOOT

    def __call__(self) -> Moment:
        return Moment(wall=1_700_000_000 + self.time, boot=self.time, boot_id=self.boot_id)


@dataclass
class FakeContainer:
    launch: Launch
    pid: int
    started_at: float
    exit: Exit | None = None
    signals: list[int] = field(default_factory=list)


class FakeRuntime:
    """Outlives any daemon. `reboot()` ends everything without a record, as a power cut does."""

    def __init__(self, clock: Callable[[], Moment], doom: Doom | None = None) -> None:
        self._doom = doom or Doom()
        self.containers: dict[str, FakeContainer] = {}
        self.healthy: dict[str, bool] = {}
        self.starts: list[tuple[str, int]] = []
        self.start_error: AgentError | None = None
        self.waits: asyncio.Event | None = None
        self.stuck: AgentError | None = None
        self.most_alive: dict[str, int] = {}
        self._clock = clock
        self._pid = 100
        self._exits: asyncio.Queue[str] = asyncio.Queue()
        self.removable = asyncio.Event()
        self.removable.set()

    def alive(self) -> set[str]:
        return {uid for uid, container in self.containers.items() if container.exit is None}

    def end(self, uid: str, code: int) -> None:
        container = self.containers[uid]
        if container.exit is None:
            container.exit = Exit(code, self._clock().wall, started_at=container.started_at)
            self._exits.put_nowait(uid)

    def end_unheard(self, uid: str, code: int) -> None:
        self.containers[uid].exit = Exit(code, self._clock().wall)

    def reboot(self) -> None:
        self.containers.clear()

    async def start(self, launch: Launch, *, still: Callable[[], bool]) -> Started:
        await asyncio.sleep(0)
        if self.waits is not None:
            await self.waits.wait()
        if not still():
            raise Interrupted("Interrupted", launch.uid)
        if self.start_error is not None:
            raise self.start_error
        if launch.argv[0] == "absent":
            raise StartFailed(127, "execve", 2, "absent: not found in the container's PATH")
        before = self.containers.get(launch.uid)
        if before is not None and before.exit is None:
            assert before.launch.run == launch.run, "started a run while another one lives"
            return Started(before.pid, before.started_at)
        assert before is None or launch.run > before.launch.run, "runs only grow"
        self._pid += 1
        with self._doom:
            self.containers[launch.uid] = FakeContainer(launch, self._pid, self._clock().wall)
        self.starts.append((launch.uid, launch.run))
        if launch.argv[0] == "exit":
            self.end(launch.uid, int(launch.argv[1]))
        return Started(self._pid, self._clock().wall)

    def signal(self, uid: str, signum: int) -> bool:
        container = self.containers.get(uid)
        if container is None or container.exit is not None:
            return False
        with self._doom:
            container.signals.append(signum)
        if container.launch.argv[0] != "deaf":
            self.end(uid, 128 + signum)
        return True

    def kill(self, uid: str) -> bool:
        if uid not in self.alive():
            return False
        with self._doom:
            self.containers[uid].signals.append(signal.SIGKILL)
            self.end(uid, 137)
        return True

    def observe(self) -> list[ContainerState]:
        return [self._state(uid) for uid in self.containers]

    async def next_exit(self) -> ContainerState:
        while True:
            uid = await self._exits.get()
            if uid in self.containers:
                return self._state(uid)

    async def exec(self, uid: str, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        await asyncio.sleep(0)
        if self.containers[uid].launch.argv[0] == "stuck":
            await asyncio.sleep(timeout_s)
            return ExecResult(124, b"")
        well = self.healthy.get(uid, self.containers[uid].launch.argv[0] != "ill")
        return ExecResult(0 if well else 1, b"well" if well else b"ill")

    async def remove(self, uid: str) -> None:
        await asyncio.sleep(0)
        await self.removable.wait()
        self.kill(uid)
        with self._doom:
            self.containers.pop(uid, None)

    async def remove_orphans(self, known: Iterable[str]) -> list[str]:
        if self.stuck is not None:
            raise self.stuck
        orphans = sorted(self.containers.keys() - set(known))
        for uid in orphans:
            await self.remove(uid)
        return orphans

    def features(self) -> tuple[Feature, ...]:
        return ()

    async def keep_supervised(self, *, look_every_s: float) -> None:
        await asyncio.Event().wait()

    async def stop_zygote(self) -> None:
        assert not self.containers

    def close(self) -> None:
        pass

    def _state(self, uid: str) -> ContainerState:
        container = self.containers[uid]
        return ContainerState(uid, container.launch.run, None if container.exit else container.pid, container.started_at, container.exit)


class FakeImages:
    """A store and the registry behind it. `broken`: digests whose pull fails, and how. `leavings`: of pulls that ended badly.

    `failing`: how the next sweeps fail, which have removed images by then, and the next times of tidying.
    """

    def __init__(self, *digests: str, config: ImageConfig | None = None) -> None:
        self.config = config or ImageConfig(command=("run",))
        self.held = {digest: self._image(digest) for digest in digests}
        self.broken: dict[str, ImageError] = {}
        self.pulled: list[str] = []
        self.leavings: list[str] = []
        self.failing: list[OSError] = []

    def get(self, digest: str) -> Image | None:
        return self.held.get(digest)

    def images(self) -> tuple[Image, ...]:
        return tuple(self.held.values())

    def sweep(self, keep: Collection[str]) -> object:
        self.held = {digest: image for digest, image in self.held.items() if digest in keep}
        self._fail()
        return None

    def tidy(self, *, disk_is_full: bool) -> None:
        self._fail()
        self.leavings.clear()

    def _fail(self) -> None:
        if self.failing:
            raise self.failing.pop()

    def pull(
        self, spec: ImageSpec, values: Callable[[str], bytes], store: Any, progress: Callable[[int, int], None], *, cancellation: Any = None
    ) -> Image:
        if spec.digest in self.broken:
            raise self.broken[spec.digest]
        progress(50, 100)
        self.pulled.append(spec.digest)
        self.held[spec.digest] = self._image(spec.digest)
        return self.held[spec.digest]

    def _image(self, digest: str) -> Image:
        return Image(digest, "linux/amd64", self.config, ("/layers/1/fs",), 1000)


class FakeStore:
    """TaskStore in memory: what is saved outlives the daemon."""

    def __init__(self, doom: Doom | None = None) -> None:
        self._doom = doom or Doom()
        self.specs: dict[str, TaskSpec] = {}
        self.records: dict[str, Record] = {}

    def known(self) -> list[str]:
        return sorted({*self.specs, *self.records})

    def spec(self, uid: str) -> TaskSpec | None:
        return self.specs.get(uid)

    def record(self, uid: str) -> Record:
        return self.records.get(uid, Record())

    def save_spec(self, spec: TaskSpec) -> None:
        with self._doom:
            self.specs[spec.uid] = spec

    def save_record(self, uid: str, record: Record) -> None:
        with self._doom:
            self.records[uid] = record

    def remove(self, uid: str) -> None:
        with self._doom:
            self.specs.pop(uid, None)
            self.records.pop(uid, None)
