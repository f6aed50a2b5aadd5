"""What image sources mean right now. A server may answer as slowly as it likes: it does not keep the others from being asked for good."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

from moorage_agent.errors import ImageError
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.protocol import ImageSource, ResolvedImage

IN_FLIGHT = 4
ANSWER_WITHIN_S = 520.0  # an operator waits for 600 s, 60 s of them for values it sends itself
REGISTRY_WITHIN_S = 120.0  # a manifest and a configuration are a few MiB at most
DOWNLOAD_WITHIN_S = 2 * 3600.0
KEPT_S = 600.0


class Resolver:
    """`resolve` blocks, and raises Interrupted soon after its cancellation."""

    def __init__(self, resolve: Callable[[ImageSource, Cancellation], ResolvedImage]) -> None:
        self._resolve = resolve
        self._registries, self._archives = ThreadPoolExecutor(IN_FLIGHT, "resolve"), ThreadPoolExecutor(IN_FLIGHT, "resolve-archive")
        self._downloaders = ThreadPoolExecutor(IN_FLIGHT, "resolve-download")
        self._downloads: dict[ImageSource, asyncio.Task[ResolvedImage]] = {}

    async def resolve(self, source: ImageSource) -> ResolvedImage:
        """Raises ImageError. Who is cancelled while waiting here ends the work, too, unless it is a download."""
        if source.kind == "ArchiveUrl":
            return await self._downloaded(source)
        threads, seconds = (self._registries, REGISTRY_WITHIN_S) if source.kind == "Registry" else (self._archives, ANSWER_WITHIN_S)
        try:
            return await asyncio.wait_for(self._within(seconds, threads, source), ANSWER_WITHIN_S)
        except asyncio.TimeoutError:
            raise _too_late(source, ANSWER_WITHIN_S) from None

    def close(self) -> None:
        for download in self._downloads.values():
            download.cancel()
        for threads in (self._registries, self._archives, self._downloaders):
            threads.shutdown(wait=False)

    async def _within(self, seconds: float, threads: ThreadPoolExecutor, source: ImageSource) -> ResolvedImage:
        """The seconds begin when one of the threads is free."""
        loop, cancellation, begun = asyncio.get_running_loop(), Cancellation(), asyncio.Event()

        def resolve() -> ResolvedImage:
            loop.call_soon_threadsafe(begun.set)
            return self._resolve(source, cancellation)

        work = loop.run_in_executor(threads, resolve)
        try:
            await begun.wait()
            return await asyncio.wait_for(work, seconds)
        except asyncio.TimeoutError:
            raise _too_late(source, seconds) from None
        finally:
            cancellation.cancel()
            work.cancel()

    async def _downloaded(self, source: ImageSource) -> ResolvedImage:
        """An archive may be longer on its way than anyone waits: the download goes on, and whoever asks next has what came of it."""
        task = self._downloads.get(source)
        if task is None:
            loop = asyncio.get_running_loop()
            task = self._downloads[source] = loop.create_task(self._within(DOWNLOAD_WITHIN_S, self._downloaders, source))
            task.add_done_callback(lambda done: loop.call_later(KEPT_S, self._forget, source, done))
        await asyncio.wait({task}, timeout=ANSWER_WITHIN_S)
        if not task.done():
            text = f"{source.url} is still being downloaded after {ANSWER_WITHIN_S:g} s; the download goes on, and the next try finds it"
            raise ImageError("StillDownloading", text, 10.0)
        self._forget(source, task)
        return task.result()

    def _forget(self, source: ImageSource, task: asyncio.Task[ResolvedImage]) -> None:
        if self._downloads.get(source) is task:
            del self._downloads[source]


def _too_late(source: ImageSource, seconds: float) -> ImageError:
    what = source.reference or source.url or source.path or source.key
    return ImageError("RegistryUnreachable", f"what {what} means could not be found out within {seconds:g} s", 60.0)
