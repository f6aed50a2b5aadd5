"""Images of this node: what is here, what is being pulled, what failed and when it is tried again."""

from __future__ import annotations

import asyncio
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
        self._arrivals = asyncio.Event()

    def value_arrived(self) -> None:
        """Pulls that wait for values look again."""
        self._arrivals.set()
        self._arrivals = asyncio.Event()

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
        self.value_arrived()

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
        self.value_arrived()
        await asyncio.gather(*(task for task, _ in pulls), return_exceptions=True)

    async def _pull(self, spec: ImageSpec, cancellation: Cancellation) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._wait_for_values(spec, cancellation)
            async with self._places:
                self._set(spec.digest, ImageView("Pulling"))

                def progress(done: int, total: int) -> None:
                    loop.call_soon_threadsafe(self._progress, spec.digest, done, total)

                image = await loop.run_in_executor(
                    self._threads, lambda: self._fetch(spec, self._world.values.get, self._store, progress, cancellation=cancellation)
                )
            log.info("pulled", extra={"fields": {"digest": spec.digest, "bytes": image.size}})
            self._have(image)
        except Interrupted:
            self.forget(spec.digest)
        except (AgentError, OSError) as error:
            if isinstance(error, ImageError) and error.code == "Unauthorized" and spec.source.credentials:
                self._world.values.drop(spec.source.credentials)  # they may have been changed since: the next try asks for them anew
            self._failed(spec.digest, error)
        except Exception as error:
            log.exception("pull failed by a bug", extra={"fields": {"digest": spec.digest}})
            self._failed(spec.digest, ImageError("PullFailed", f"the pull failed: {error!r}", 60.0))
        finally:
            del self._pulls[spec.digest]
            self._said_at.pop(spec.digest, None)

    async def _wait_for_values(self, spec: ImageSpec, cancellation: Cancellation) -> None:
        missing = self._world.values.missing(source_keys(spec.source))
        while missing:
            cancellation.check()
            self._ask(missing)
            why = next((self._world.value_errors[key] for key in missing if key in self._world.value_errors), "")
            self._set(
                spec.digest, ImageView("Queued", "WaitingForSecrets", f"waits for {', '.join(missing)}" + (f": {why}" if why else ""))
            )
            await asyncio.sleep(0.2)
            missing = self._world.values.missing(missing)

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
