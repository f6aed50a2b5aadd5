"""What the daemon needs of runtime and images, as it sees them: `runtime/` and `images/` are that, and so are the tests' fakes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from moorage_agent.images.store import Image
from moorage_agent.protocol import Feature, ImageSource, ImageSpec, ResolvedImage
from moorage_agent.runtime.launch import Launch
from moorage_agent.runtime.runtime import ContainerState, ExecResult, Started


class Runtime(Protocol):
    """runtime.runtime.Runtime says what each does and raises."""

    async def keep_supervised(self, *, look_every_s: float) -> None: ...

    async def start(self, launch: Launch, *, still: Callable[[], bool]) -> Started: ...

    def signal(self, uid: str, signum: int) -> bool: ...

    def kill(self, uid: str) -> bool: ...

    def observe(self) -> list[ContainerState]: ...

    async def next_exit(self) -> ContainerState: ...

    async def exec(self, uid: str, argv: Sequence[str], *, timeout_s: float) -> ExecResult: ...

    async def remove(self, uid: str) -> None: ...

    async def remove_orphans(self, known: Iterable[str]) -> list[str]: ...

    def features(self) -> tuple[Feature, ...]: ...

    async def stop_zygote(self) -> None: ...

    def close(self) -> None: ...


class Images(Protocol):
    """images.store.ImageStore says what each does and raises."""

    def get(self, digest: str) -> Image | None: ...

    def images(self) -> tuple[Image, ...]: ...

    def sweep(self, keep: Collection[str]) -> object: ...

    def tidy(self, *, disk_is_full: bool) -> None: ...


class Resolve(Protocol):
    """images.pull_process.resolve_apart: blocks, raises ImageError or Interrupted."""

    def __call__(self, source: ImageSource, values: Callable[[str], bytes], store: Any, *, cancellation: Any) -> ResolvedImage: ...


class Pull(Protocol):
    """images.pull_process.pull_apart: blocks, raises ImageError or Interrupted."""

    def __call__(
        self, spec: ImageSpec, values: Callable[[str], bytes], store: Any, progress: Callable[[int, int], None], *, cancellation: Any
    ) -> Image: ...
