"""Images of this node: what is here, what is being pulled, what failed and when it is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from moorage_agent.engine import Images, Pull
from moorage_agent.errors import AgentError, ImageError, Interrupted
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.store import Image
from moorage_agent.protocol import ImageSource, ImageSpec
from moorage_agent.task_state import ImageView, Moment
from moorage_agent.values import source_keys
from moorage_agent.world import World

log = logging.getLogger("moorage.pulls")

PULLS_IN_FLIGHT = 2
PROGRESS_EVERY_S = 1.0
VALUES_WITHIN_S = 5.0


class Puller:
    """`changed` is told the digest of every image whose view changed; `ask` the keys of values a pull needs."""

    def __init__(
        self,
        world: World,
        store: Images,
        pull: Pull,
        *,
        clock: Callable[[], Moment],
        changed: Callable[[str], None],
        ask: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._threads = ThreadPoolExecutor(PULLS_IN_FLIGHT, "pull")  # their own: a slow registry must not hold up anything else
        self._world, self._store, self._fetch, self._clock, self._changed, self._ask = world, store, pull, clock, changed, ask
        self._places = asyncio.Semaphore(PULLS_IN_FLIGHT)
        self._pulls: dict[str, tuple[asyncio.Task[None], Cancellation]] = {}
        self._said_at: dict[str, float] = {}

    def look(self, digests: Iterable[str]) -> None:
        """Note which of these images are here already."""
        for digest in digests:
            if self._world.images.get(digest, ImageView()).state == "Absent":
                image = self._store.get(digest)
                if image is not None:
                    self._have(image)

    def ensure(self, digest: str, source: ImageSource) -> None:
        """Pull the image unless it is here or on its way."""
        self.look([digest])
        if digest in self._pulls or self._world.images.get(digest, ImageView()).state == "Ready":
            return
        cancellation = Cancellation()
        task = asyncio.get_running_loop().create_task(self._pull(ImageSpec(digest, source), cancellation))
        self._pulls[digest] = (task, cancellation)
        self._set(digest, ImageView("Queued"))

    def drop_unwanted(self, wanted: Iterable[str]) -> None:
        """Stop pulling what nobody wants any more."""
        for digest in self._pulls.keys() - set(wanted):
            self._pulls[digest][1].cancel()

    def try_again(self, digests: Iterable[str]) -> None:
        """Something new wants these images: a failure of before is no answer to it."""
        for digest in digests:
            if self._world.images.get(digest, ImageView()).state == "Failed":
                self.forget(digest)

    def forget(self, digest: str) -> None:
        """Nothing is known of this image any more."""
        self._world.images.pop(digest, None)
        self._changed(digest)

    async def close(self) -> None:
        pulls = list(self._pulls.values())
        for _, cancellation in pulls:
            cancellation.cancel()
        await asyncio.gather(*(task for task, _ in pulls), return_exceptions=True)

    async def _pull(self, spec: ImageSpec, cancellation: Cancellation) -> None:
        try:
            image = await self._from_any(spec, cancellation)
            log.info("pulled", extra={"fields": {"digest": spec.digest, "bytes": image.size}})
            self._have(image)
        except Interrupted:
            self.forget(spec.digest)
        except (AgentError, OSError) as error:
            self._failed(spec.digest, error)
        except Exception as error:
            log.exception("pull failed by a bug", extra={"fields": {"digest": spec.digest}})
            self._failed(spec.digest, ImageError("PullFailed", f"the pull failed: {error!r}", 60.0))
        finally:
            del self._pulls[spec.digest]
            self._said_at.pop(spec.digest, None)

    async def _from_any(self, spec: ImageSpec, cancellation: Cancellation) -> Image:
        """The image from whichever source of it gives it: one whose password is wrong must not keep others from what they may have."""
        *first, last = self._sources(spec)
        for source in first:
            with contextlib.suppress(ImageError):
                return await self._from(ImageSpec(spec.digest, source), cancellation)
        return await self._from(ImageSpec(spec.digest, last), cancellation)

    def _sources(self, spec: ImageSpec) -> list[ImageSource]:
        """The sources the document names for the digest, those whose values are here first."""
        named = dict.fromkeys(image.source for image in self._world.wished_images() if image.digest == spec.digest)
        return sorted(named, key=lambda source: len(self._world.values.missing(source_keys(source)))) or [spec.source]

    async def _from(self, spec: ImageSpec, cancellation: Cancellation) -> Image:
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._progress, spec.digest, done, total)

        await self._wait_for_values(spec, cancellation)
        async with self._places:
            self._set(spec.digest, ImageView("Pulling"))
            try:
                return await loop.run_in_executor(
                    self._threads, lambda: self._fetch(spec, self._world.values.get, self._store, progress, cancellation=cancellation)
                )
            except ImageError as error:
                if error.code == "Unauthorized" and spec.source.credentials:
                    self._world.values.drop(spec.source.credentials)  # they may have been changed since: the next try asks for them anew
                raise

    async def _wait_for_values(self, spec: ImageSpec, cancellation: Cancellation) -> None:
        """Raises ImageError when they do not come in time; they begin the next try when they do."""
        deadline, keys = self._clock().boot + VALUES_WITHIN_S, source_keys(spec.source)
        if self._world.values.missing(keys):
            self._ask(self._world.values.missing(keys))
        while missing := self._world.values.missing(keys):
            cancellation.check()
            why = next((self._world.value_errors[key] for key in missing if key in self._world.value_errors), "")
            text = f"waits for {', '.join(missing)}" + (f": {why}" if why else "")
            self._set(spec.digest, ImageView("Queued", "WaitingForSecrets", text))
            if self._clock().boot >= deadline:
                raise ImageError("WaitingForSecrets", text, VALUES_WITHIN_S)
            await asyncio.sleep(0.2)

    def _progress(self, digest: str, done: int, total: int) -> None:
        view, now = self._world.images.get(digest), self._clock().boot
        if view is None or view.state != "Pulling" or now - self._said_at.get(digest, 0.0) < PROGRESS_EVERY_S:
            return
        self._said_at[digest] = now
        self._set(digest, dataclasses.replace(view, done=done, total=total))

    def _have(self, image: Image) -> None:
        self._set(image.digest, ImageView("Ready", config=image.config))

    def _failed(self, digest: str, error: AgentError | OSError) -> None:
        code = error.code if isinstance(error, AgentError) else "HostError"
        after = error.retry_after_s if isinstance(error, ImageError) else 30.0
        retry_at = None if after is None else self._clock().boot + after * random.uniform(1.0, 1.2)  # noqa: S311
        log.warning("pull failed", extra={"fields": {"digest": digest, "code": code, "error": str(error)}})
        self._set(digest, ImageView("Failed", code, str(error), retry_at))

    def _set(self, digest: str, view: ImageView) -> None:
        self._world.images[digest] = view
        self._changed(digest)
