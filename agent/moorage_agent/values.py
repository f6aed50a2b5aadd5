"""Values that travel apart from the document, by key. Secrets and credentials live in a tmpfs mounted here, nowhere else; the rest on disk.

Containers get files, one per content, owner and mode, bound read-only. A value that changes under its key (onDataChange: Ignore) becomes a
new file: containers that run keep the old one until their next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterable

from moorage_agent.errors import AgentError, InvalidTask
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageSource, TaskSpec
from moorage_agent.runtime import linux
from moorage_agent.state import name_synced, replace_file

SECRET_KINDS = ("secret", "pull")
OPEN_KINDS = ("config", "ca")
TMPFS_SIZE = "size=64m,nr_inodes=64k"


def is_secret(key: str) -> bool:
    """Raises InvalidTask for a key of no known kind."""
    kind = key.partition("/")[0]
    if kind not in SECRET_KINDS + OPEN_KINDS:
        raise InvalidTask("InvalidValueKey", f"value key {key!r} starts with none of {', '.join(SECRET_KINDS + OPEN_KINDS)}")
    return kind in SECRET_KINDS


def keys_of(task: TaskSpec) -> tuple[str, ...]:
    """The values a task's container needs."""
    container = task.container
    keys = [env.key for env in container.env if env.key is not None] + [file.key for file in container.files]
    return tuple(dict.fromkeys(keys))


def source_keys(source: ImageSource) -> tuple[str, ...]:
    """The values it takes to pull from `source`."""
    return tuple(key for key in (source.credentials, source.ca_bundle, source.key) if key is not None)


def mount_secrets(paths: Paths) -> None:
    """A tmpfs for secrets, 0700, in no swap where the kernel can (6.4). Raises AgentError when what is there afterwards is no tmpfs.

    Mounted before the zygote starts, whose mount namespace is a copy.
    """
    os.makedirs(paths.secrets, mode=0o700, exist_ok=True)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounted = filesystem_at(file.read(), os.path.realpath(paths.secrets))
    if mounted is None:
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        try:
            linux.mount("moorage-secrets", paths.secrets, "tmpfs", flags, f"mode=0700,{TMPFS_SIZE},noswap")
        except OSError:
            linux.mount("moorage-secrets", paths.secrets, "tmpfs", flags, f"mode=0700,{TMPFS_SIZE}")
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounted = filesystem_at(file.read(), os.path.realpath(paths.secrets))
    if mounted != "tmpfs":
        raise AgentError("SecretsNotInMemory", f"{paths.secrets} is {mounted or 'no mount'}, not tmpfs; unmount whatever is there")


def filesystem_at(mountinfo: str, path: str) -> str | None:
    """The type of the file system mounted at `path`, the topmost one; None when nothing is. Format: proc_pid_mountinfo(5)."""
    found = None
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        if fields.split(" ")[4] == path:
            found = tail.split(" ")[0]
    return found


class ValueStore:
    """The values this host has. Every method but `sync` is quick: small files, no network.

    That a value is on disk is known by its name alone, after a power cut too: it gets its name once it is whole there, by `sync`. Until
    then it is read where it was written, and forgotten with the daemon.
    """

    def __init__(self, paths: Paths) -> None:
        self._homes = {True: paths.secrets, False: paths.configs}
        self._present: set[str] = set()
        self._unsynced: dict[str, str] = {}
        self._writes = 0
        self._changing, self._syncing = threading.Lock(), threading.Lock()
        for home in self._homes.values():
            with contextlib.suppress(FileNotFoundError):
                self._present.update(name for name in os.listdir(f"{home}/values") if not name.endswith(".new"))

    def make(self) -> None:
        """Make the directories; the tmpfs for secrets is mounted by then."""
        for home in self._homes.values():
            for part in ("values", "files"):
                os.makedirs(f"{home}/{part}", mode=0o700, exist_ok=True)

    def home(self, key: str) -> str:
        """The directory of values of its kind."""
        return self._homes[is_secret(key)]

    def has(self, key: str) -> bool:
        return _name(key) in self._present

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        return tuple(key for key in keys if not self.has(key))

    def get(self, key: str) -> bytes:
        """Raises AgentError when the value is not here."""
        data = self._read(key)
        if data is None:
            self._present.discard(_name(key))
            raise AgentError("ValueMissing", f"the value {key} is not on this host; the operator sends it when connected")
        return data

    def _read(self, key: str) -> bytes | None:
        for path in (self._unsynced.get(self._value_path(key)), self._value_path(key)):  # the first gets the second's name meanwhile
            with contextlib.suppress(FileNotFoundError):
                if path is not None:
                    with open(path, "rb") as file:
                        return file.read()
        return None

    def put(self, key: str, data: bytes) -> None:
        path = self._value_path(key)
        if not self.has(key) or self._read(key) != data:
            if is_secret(key):
                replace_file(path, data)
            else:
                self._writes += 1
                written = f"{path}.{self._writes}.new"
                replace_file(written, data)
                with self._changing:
                    self._unsynced[path] = written
        self._present.add(_name(key))

    @property
    def unsynced(self) -> bool:
        return bool(self._unsynced)

    def sync(self) -> None:
        """Put on the platter what was put here. Runs in a thread."""
        with self._syncing:
            with self._changing:
                found = list(self._unsynced.items())
            for path, written in found:
                with contextlib.suppress(FileNotFoundError):  # swept, or dropped
                    name_synced(written, path)
                with self._changing:
                    if self._unsynced.get(path) == written:
                        del self._unsynced[path]

    def drop(self, key: str) -> None:
        """Forget a value that proved to be wrong."""
        self._present.discard(_name(key))
        for path in (self._unsynced.pop(self._value_path(key), None), self._value_path(key)):
            with contextlib.suppress(FileNotFoundError):
                if path is not None:
                    os.unlink(path)

    def file(self, key: str, *, uid: int, gid: int, mode: int) -> str:
        """The path of a file with this value, owner and mode, to be bound into containers."""
        data = self.get(key)
        name = hashlib.sha256(data).hexdigest()
        path = f"{self.home(key)}/files/{name}.{uid}.{gid}.{mode & 0o7777:o}"
        if _holds(path, data):  # a power cut may have emptied it
            os.utime(path)
            return path
        temporary = f"{path}.new"
        replace_file(temporary, data)
        os.chown(temporary, uid, gid)
        os.chmod(temporary, mode & 0o7777)
        os.rename(temporary, path)
        return path

    def sweep(self, keys: Iterable[str], files: Iterable[str], *, older_than_s: float) -> list[str]:
        """Delete values and files nobody refers to, unless they are so young that their document may be on its way."""
        paths = {self._value_path(key) for key in keys}
        with self._changing:
            wanted = paths | {written for path, written in self._unsynced.items() if path in paths} | set(files)
        gone = []
        for home in self._homes.values():
            for part in ("values", "files"):
                gone += _sweep(f"{home}/{part}", wanted, before=time.time() - older_than_s)
        with self._changing:
            self._unsynced = {path: written for path, written in self._unsynced.items() if written not in gone}
        self._present -= {os.path.basename(path).partition(".")[0] for path in gone}
        return gone

    def _value_path(self, key: str) -> str:
        return f"{self.home(key)}/values/{_name(key)}"


def _holds(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() == data
    except FileNotFoundError:
        return False


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _sweep(directory: str, wanted: set[str], *, before: float) -> list[str]:
    gone = []
    for entry in os.scandir(directory):
        if entry.path not in wanted and entry.stat().st_mtime < before:
            os.unlink(entry.path)
            gone.append(entry.path)
    return gone
