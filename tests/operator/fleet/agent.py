"""The other end of a session."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from moorage_agent.protocol import Decoder, HostFacts, ImageConfig, NodeReport, ResolvedImage, encode, to_wire
from moorage_operator.fleet import loader
from moorage_operator.fleet.archive import archive_of

from tests.operator.fleet.sshd import Process

ARCHIVE = archive_of({"__main__.py": b"the agent"})
NO_SUCH_TAG = {"code": "NotFound", "message": "no such tag", "retryAfterS": 70}
FACTS = HostFacts("host-id", "n1", "Debian 12", "6.1", "amd64", "boot", "3.11.2", ARCHIVE.sha256, 2000, 1 << 30, "v2")
FIRST_REPORT = NodeReport(True, 0, 0, "")


@dataclass
class Agent:
    """Behaves like an agent over one channel: installs, greets, obeys documents, answers questions."""

    installed: bool = True
    bound: dict[str, Any] | None = None
    refuse: dict[str, Any] | None = None
    undecided: bool = False
    silent: bool = False
    remains: dict[str, Any] | None = None
    """The error an uninstall is answered with."""

    heard: list[str] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    hellos: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, bytes | str] = field(default_factory=dict)
    received_archive: bytes = b""
    process: Process | None = None

    async def serve(self, process: Process) -> None:
        self.process = process
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._serve(process)

    async def _serve(self, process: Process) -> None:
        assert (await process.stdin.readexactly(len(loader.PROGRAM))).decode() == loader.PROGRAM
        if not self.installed:
            process.stdout.write(json.dumps({"want": ARCHIVE.sha256}).encode() + b"\n")
            self.received_archive = await process.stdin.readexactly(len(ARCHIVE.data))
        process.stdout.write(json.dumps({"agent": ARCHIVE.sha256}).encode() + b"\n")
        self.say({"type": "hello", "protocol": 1, "agentVersion": ARCHIVE.sha256, "facts": to_wire(FACTS), "bound": self.bound})
        decoder = Decoder()
        while data := await process.stdin.read(1 << 16):
            for message, payload in decoder.feed(data):
                self._hear(message, payload)

    def _hear(self, message: dict[str, Any], payload: bytes) -> None:
        if self.silent:
            return
        kind = message["type"]
        self.heard.append(kind)
        if kind == "hello":
            self.hellos.append(message)
            if self.refuse:
                self.say({"type": "refused", **self.refuse})
            elif not self.undecided:
                self.accept()
        elif kind == "document":
            spec = message["spec"]
            self.documents.append(spec)
            self.say({"type": "accepted", "epoch": spec["epoch"], "revision": spec["revision"], "hash": "h"})
        elif kind == "value":
            self.values[message["key"]] = message["error"]["code"] if "error" in message else payload
        elif kind == "resolve":
            self._resolve(message)
        elif kind == "uninstall":
            answer = {"type": "done", "id": message["id"]}
            self.say({**answer, "error": self.remains} if self.remains else answer)
        elif kind == "ping":
            self.say({"type": "pong", "at": message["at"]})

    def _resolve(self, message: dict[str, Any]) -> None:
        if message["source"]["reference"] == "bad":
            self.say({"type": "resolved", "id": message["id"], "error": NO_SUCH_TAG})
        else:
            image = ResolvedImage("sha256:1", "linux/amd64", 5, ImageConfig())
            self.say({"type": "resolved", "id": message["id"], "image": to_wire(image)})

    def accept(self) -> None:
        self.say({"type": "report", "report": to_wire(FIRST_REPORT)})

    def say(self, message: dict[str, Any]) -> None:
        assert self.process
        self.process.stdout.write(encode({k: v for k, v in message.items() if v is not None}))
