"""What the agent keeps on disk: host id, binding, the document in force, and each task's spec and record.

Files are replaced by rename, so the death of a process leaves the old or the new. A power cut is another matter: without fsync a renamed
file may be empty afterwards. The binding is rare and is synced at once. The document is frequent and is written in turn to two slots, each
with its hash, and synced off the hot path: one of the two is always whole. Records of tasks change with every start and exit.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from typing import Any

from moorage_agent.ownership import Binding
from moorage_agent.paths import Paths
from moorage_agent.protocol import NodeSpec, ProtocolError, TaskSpec, content_hash, from_wire, to_wire
from moorage_agent.task_state import Record


def replace_file(path: str, data: bytes, *, durable: bool = False) -> None:
    """Write `data` as `path`, whole or not at all. durable: it also survives a power cut (costs milliseconds)."""
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    except OSError:
        os.unlink(temporary)  # on a full disk the half of it must not take the room that is left
        raise
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    if durable:
        sync_directory(os.path.dirname(path))


def name_synced(written: str, path: str) -> None:
    """Give a written file its name once it is whole on the disk."""
    descriptor = os.open(written, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(written, path)
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: str) -> Any:
    """The JSON in a file; None when it is absent or damaged (a power cut can leave it empty)."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


BLOCK = 4096


class HostState:
    """The node's own facts: host id, binding, document. `unsynced`: a saved document a power cut could still take."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._slot = 0
        self.unsynced: str | None = None

    def host_id(self) -> str:
        """Made once, at random: clones of a machine share its machine-id."""
        path = f"{self._paths.state}/host-id"
        held = read_json(path)
        if not isinstance(held, str) or not held:
            held = str(uuid.uuid4())
            replace_file(path, json.dumps(held).encode(), durable=True)
        return held

    def binding(self) -> Binding | None:
        data = read_json(f"{self._paths.state}/binding.json")
        return from_wire(Binding, data) if data else None

    def save_binding(self, binding: Binding) -> None:
        replace_file(f"{self._paths.state}/binding.json", json.dumps(to_wire(binding)).encode(), durable=True)

    def document(self, binding: Binding) -> tuple[NodeSpec, str] | None:
        """The newest whole document of this binding, and its hash."""
        found = []
        for slot in (0, 1):
            data = read_json(self._slot_path(slot))
            if not isinstance(data, dict) or content_hash(data.get("spec")) != data.get("hash"):
                continue
            with contextlib.suppress(ProtocolError):
                spec = from_wire(NodeSpec, data["spec"])
                if (spec.swarm_id, spec.node_uid) == (binding.swarm_id, binding.node_uid):
                    found.append((spec.epoch, spec.revision, slot, spec, str(data["hash"])))
        if not found:
            return None
        _, _, self._slot, newest, digest = max(found, key=lambda entry: entry[:3])
        self._slot = 1 - self._slot
        return newest, digest

    def save_document(self, spec: Any, digest: str) -> None:
        """Keep a document (its wire form). It outlives the daemon now, and a power cut once `sync` returned."""
        path = self._slot_path(self._slot)
        replace_file(path, b'{"hash":"%s","spec":%s}' % (digest.encode(), json.dumps(spec, separators=(",", ":")).encode()))
        self.unsynced = path

    def sync(self) -> None:
        """Put the last saved document on the platter. Runs in a thread; until it returns, saves go to the same slot."""
        path, self.unsynced = self.unsynced, None
        if path is None:
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._paths.state)
        if self.unsynced is None:
            self._slot = 1 - self._slot

    def _slot_path(self, slot: int) -> str:
        return f"{self._paths.state}/document-{'ab'[slot]}.json"


class TaskStore:
    """Each task's spec and record, in the task's directory: what is needed to stop it after the document forgot it."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def known(self) -> list[str]:
        """Uids of the tasks that have a directory."""
        try:
            return sorted(name for name in os.listdir(self._paths.tasks) if len(name) == 36)
        except FileNotFoundError:
            return []

    def spec(self, uid: str) -> TaskSpec | None:
        data = read_json(f"{self._paths.task(uid)}/task.json")
        with contextlib.suppress(ProtocolError):
            return from_wire(TaskSpec, data) if data else None
        return None

    def record(self, uid: str) -> Record:
        data = read_json(f"{self._paths.task(uid)}/record.json")
        with contextlib.suppress(ProtocolError):
            return from_wire(Record, data) if data else Record()
        return Record()

    def save_spec(self, spec: TaskSpec) -> None:
        self._save(spec.uid, "task.json", json.dumps(to_wire(spec)).encode())

    def save_record(self, uid: str, record: Record) -> None:
        self._save(uid, "record.json", json.dumps(to_wire(record)).encode())

    def _save(self, uid: str, name: str, data: bytes) -> None:
        """In place, as one block: making and renaming a file per change costs the disk's journal ten times as much, and blocks the loop.

        One write of one block is whole after the death of the process, and on all but odd disks after a power cut; what is larger is
        replaced by rename. Trailing blanks are nothing to JSON.
        """
        directory = self._paths.task(uid)
        path = f"{directory}/{name}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if len(data) > BLOCK or os.fstat(descriptor).st_size > BLOCK:
                replace_file(path, data)
            else:
                _write_block(descriptor, data)
        finally:
            os.close(descriptor)

    def remove(self, uid: str) -> None:
        """Delete the task's directory, with whatever is in it."""
        shutil.rmtree(self._paths.task(uid), ignore_errors=True)


def _write_block(descriptor: int, data: bytes) -> None:
    written = os.pwrite(descriptor, data.ljust(BLOCK), 0)
    if written != BLOCK:
        raise OSError(errno.ENOSPC, f"only {written} of {BLOCK} bytes of a record could be written")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
