"""What operators may do with this node, one at a time: claim it, give it a document, send values, ask, uninstall."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from moorage_agent import ownership
from moorage_agent.contact import Contact
from moorage_agent.errors import AgentError, ImageError, Refused
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.intake import Intake
from moorage_agent.protocol import PROTOCOL, ImageSource, NodeReport, NodeSpec, ResolvedImage, to_wire
from moorage_agent.report import Reporter
from moorage_agent.resolves import Resolver
from moorage_agent.session import Session
from moorage_agent.state import HostState
from moorage_agent.values import source_keys
from moorage_agent.version import VERSION
from moorage_agent.world import World

log = logging.getLogger("moorage.desk")

VALUES_WITHIN_S = 60.0
UNINSTALLING = "the agent is being uninstalled from this host: wait until it is gone, or until the uninstall gives up"


class OperatorDesk:
    """`taken` gets the uids a new document touches; `arrived` a key whose value, or its absence, was told; `resolve` blocks."""

    def __init__(
        self,
        world: World,
        host: HostState,
        *,
        reporter: Reporter,
        contact: Contact,
        taken: Callable[[set[str]], None],
        arrived: Callable[[str], None],
        resolve: Callable[[ImageSource, Cancellation], ResolvedImage],
        remove_all: Callable[[], Awaitable[None]],
        end: Callable[[], None],
    ) -> None:
        self._world, self._host, self._reporter, self._contact = world, host, reporter, contact
        self._taken, self._arrived, self._end = taken, arrived, end
        self._resolver, self._remove_all = Resolver(resolve), remove_all
        self._binding = host.binding()
        self._intake = Intake()
        self._session: Session | None = None
        self._uninstalling: asyncio.Task[None] | None = None
        self._syncing = False
        self._epoch_unsaved = False
        self._unsaved: tuple[Any, str] | None = None
        self._arrival = asyncio.Event()
        self._told: dict[str, int] = {}  # how often the operator said something of a key in this life

    def held_document(self) -> tuple[NodeSpec, str] | None:
        """The document in force when the last daemon ended."""
        return self._host.document(self._binding) if self._binding else None

    def ask(self, keys: tuple[str, ...], *, again: bool = False) -> None:
        """Ask the operator for values; without one they are asked for when it comes."""
        if self._session is not None:
            self._session.ask(keys, again=again)

    def save_again(self) -> None:
        """Write the epoch and the document in force unless they are written.

        A full disk must not keep an operator from stopping what fills it. Until they are written, a daemon that dies comes back with those
        before, and gets these with the operator's next session.
        """
        try:
            if self._binding is not None and self._epoch_unsaved:
                self._host.save_binding(self._binding)
                self._epoch_unsaved = False
            if self._unsaved is not None:
                self._host.save_document(*self._unsaved)
                self._unsaved = None
                self._sync_soon()
        except OSError as error:
            log.warning("the epoch or the document cannot be written", extra={"fields": {"error": str(error)}})
        if self._world.values.unsynced:
            self._sync_soon()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._resolver.close()
        if self._uninstalling is not None:
            self._uninstalling.cancel()  # files whose removal has begun are removed all the same: it is a thread
        with contextlib.suppress(OSError):
            self._sync()

    # --- session.Desk

    def greeting(self) -> dict[str, Any]:
        hello: dict[str, Any] = {"type": "hello", "protocol": PROTOCOL, "agentVersion": VERSION, "facts": to_wire(self._reporter.facts)}
        if self._binding is not None:
            hello["bound"] = {**to_wire(self._binding), "revision": self._world.document.revision if self._world.document else 0}
        return hello

    def epoch(self) -> int:
        return self._binding.epoch if self._binding else 0

    def claim(self, session: Session, claim: ownership.Claim) -> None:
        binding = ownership.bind(self._binding, claim)
        if self._uninstalls() and not self._is_owner(binding):
            raise Refused("Uninstalling", UNINSTALLING)
        self._bind(binding)
        if self._session is not None and self._session is not session:
            log.info("a newer session takes over")
            self._session.close()
        self._session = session
        self._contact.begin()
        self._reporter.listen(session.send_report)
        self.ask(self._missing())

    def document(self, session: Session, spec: Any) -> tuple[int, int, str]:
        if session is not self._session or self._binding is None:
            raise Refused("Superseded", "a newer session speaks for this node")
        if self._uninstalls():
            raise AgentError("Uninstalling", UNINSTALLING)
        document, digest = self._intake.read(spec)
        self._bind(ownership.admit(self._binding, self._world.document, self._world.document_hash, document, digest))
        if digest != self._world.document_hash:
            self._taken(self._obey(spec, document, digest))
        self._contact.document()
        return document.epoch, document.revision, digest

    def value(self, key: str, data: bytes | None, why: str) -> None:
        if data is not None:
            why = self._keep(key, data)
        if why:
            self._world.value_errors[key] = why
        else:
            self._world.value_errors.pop(key, None)
        self._told[key] = self._told.get(key, 0) + 1
        self._arrival.set()
        self._arrival = asyncio.Event()
        self._arrived(key)

    def _keep(self, key: str, data: bytes) -> str:
        """Why it could not be kept; the housekeeping asks for it again."""
        try:
            self._world.values.put(key, data)
        except OSError as error:
            return f"this host cannot keep it: {error.strerror}; make room in {self._world.values.home(key)}"
        if self._world.values.unsynced:
            self._sync_soon()
        return ""

    def heard(self, session: Session) -> None:
        if session is self._session:
            self._contact.heard()

    def gone(self, session: Session) -> None:
        if session is self._session:
            self._session = None
            self._reporter.listen(None)

    def observe(self) -> NodeReport:
        return self._reporter.full()

    def retire(self) -> None:
        if self._uninstalls():
            raise Refused("Uninstalling", UNINSTALLING)
        log.info("retires for another daemon")
        self._end()

    async def resolve(self, source: ImageSource) -> ResolvedImage:
        keys = source_keys(source)
        await self._have(keys)
        try:
            return await self._resolver.resolve(source)
        except ImageError as error:
            if error.code == "Unauthorized" and source.credentials:
                self._world.values.drop(source.credentials)  # they may have been changed since: the next try asks for them anew
            raise

    async def uninstall(self) -> None:
        """Stop and remove every task, then everything but the volumes, then end, even when nobody waits for it any more.

        Raises AgentError when a task does not go.
        """
        if self._uninstalling is None or not self._uninstalls():
            self._uninstalling = asyncio.get_running_loop().create_task(self._uninstall())
        await asyncio.shield(self._uninstalling)

    # ---

    def _uninstalls(self) -> bool:
        """From the asking on, unless it failed."""
        task = self._uninstalling
        return task is not None and not (task.done() and (task.cancelled() or task.exception() is not None))

    async def _uninstall(self) -> None:
        log.info("uninstalls")
        held = self._world.document or NodeSpec("", "", 0, 0)
        spec = to_wire(dataclasses.replace(held, tasks=(), images=()))
        self._obey(spec, *self._intake.read(spec))
        self._taken(set(self._world.tasks))
        try:
            await self._remove_all()
        except AgentError as error:
            log.warning("not uninstalled", extra={"fields": {"error": error.message}})
            raise
        asyncio.get_running_loop().call_later(0.2, self._end)

    def _obey(self, spec: Any, document: NodeSpec, digest: str) -> set[str]:
        self._unsaved = (spec, digest)
        self.save_again()
        return self._world.adopt_document(document, digest)

    def _bind(self, binding: ownership.Binding) -> None:
        """A new owner is written before it is obeyed; a higher epoch of the same one is obeyed even when it cannot be."""
        old = self._binding
        if binding == old:
            return
        if self._is_owner(binding):
            self._binding, self._epoch_unsaved = binding, True
            self.save_again()
            return
        self._host.save_binding(binding)
        if old is not None and self._world.document is not None:
            self._hand_over(ownership.rebound(self._world.document, binding))
        self._binding, self._epoch_unsaved = binding, False

    def _is_owner(self, binding: ownership.Binding) -> bool:
        bound = self._binding
        return bound is not None and (bound.swarm_id, bound.node_uid) == (binding.swarm_id, binding.node_uid)

    def _hand_over(self, document: NodeSpec) -> None:
        """Put the document in force under a new owner, on the platter at once."""
        spec = to_wire(document)
        document, digest = self._intake.read(spec)
        self._host.save_document(spec, digest)
        self._host.sync()
        self._unsaved = None
        self._world.adopt_document(document, digest)

    def _missing(self) -> tuple[str, ...]:
        return self._world.values.missing(self._world.keys_in_use())

    async def _have(self, keys: tuple[str, ...]) -> None:
        """Wait for values, those that are here already, too: who resolves wants today's password.

        Raises ImageError when the operator has none, or says nothing.
        """
        deadline = asyncio.get_running_loop().time() + VALUES_WITHIN_S
        awaited = {key: self._told.get(key, 0) for key in keys}
        self.ask(keys, again=True)
        while silent := [key for key, count in awaited.items() if self._told.get(key, 0) == count]:
            await self._next_arrival(deadline, silent)
        told = next((self._world.value_errors[key] for key in keys if key in self._world.value_errors), None)
        if told is not None:
            raise ImageError("ValueMissing", told, 30.0)

    async def _next_arrival(self, deadline: float, keys: list[str]) -> None:
        try:
            await asyncio.wait_for(self._arrival.wait(), max(0.0, deadline - asyncio.get_running_loop().time()))
        except asyncio.TimeoutError:
            missing = ", ".join(keys)
            raise ImageError("ValueMissing", f"the operator did not send {missing} within {VALUES_WITHIN_S:g} s", 30.0) from None

    def _sync(self) -> None:
        self._host.sync()
        self._world.values.sync()

    def _sync_soon(self) -> None:
        if not self._syncing:
            self._syncing = True
            asyncio.get_running_loop().run_in_executor(None, self._sync).add_done_callback(self._synced)

    def _synced(self, done: asyncio.Future[None]) -> None:
        self._syncing = False
        if done.exception() is not None:
            log.error("the document or a value could not be synced to disk", extra={"fields": {"error": str(done.exception())}})
        elif self._host.unsynced or self._world.values.unsynced:
            self._sync_soon()
