"""What outlives the processes of a container: a fixed record per run on the disk, and the facts of this boot beside it.

`<task>/exits` holds SLOTS records of 512 bytes, allocated before the first start: writing one in place at exit needs no free block, so a
full disk loses no exit code. A record without `ended` is of a run whose end nobody saw yet. `<run>/state` is rewritten by rename.
"""

from __future__ import annotations

import errno
import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from moorage_agent.runtime.request import State

RECORD_BYTES = 512
SLOTS = 16


def open_records(task_dir: str) -> int:
    """A descriptor of the records, made whole if new. Raises OSError ENOSPC before anything was started."""
    fd = os.open(f"{task_dir}/exits", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size < RECORD_BYTES * SLOTS:
            _allocate(fd, RECORD_BYTES * SLOTS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _allocate(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP and error.errno != errno.EINVAL:
            raise
        os.pwrite(fd, bytes(size), 0)


def write_record(fd: int, fields: dict[str, object], *, sync: bool) -> None:
    """Put the record of run `fields["run"]` into its slot; `sync`: it is on the disk afterwards."""
    text = " ".join(f"{key}={value}" for key, value in fields.items() if value is not None)
    slot = (int(str(fields["run"])) - 1) % SLOTS
    os.pwrite(fd, text.encode()[: RECORD_BYTES - 1].ljust(RECORD_BYTES - 1) + b"\n", slot * RECORD_BYTES)
    if sync:
        os.fdatasync(fd)


def read_records(task_dir: str) -> list[dict[str, str]]:
    """The records, oldest run first; [] when nothing was ever started."""
    try:
        with open(f"{task_dir}/exits", "rb") as file:
            data = file.read(RECORD_BYTES * SLOTS)
    except FileNotFoundError:
        return []
    found = (_parse(data[at : at + RECORD_BYTES]) for at in range(0, len(data), RECORD_BYTES))
    return sorted((record for record in found if record.get("run", "").isdigit()), key=lambda record: int(record["run"]))


def _parse(raw: bytes) -> dict[str, str]:
    return dict(word.split("=", 1) for word in raw.strip(b"\0 \n").decode(errors="replace").split(" ") if "=" in word)


def write_state(run_dir: str, state: State) -> None:
    fd = os.open(f"{run_dir}/state.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(fd, marshal.dumps(state, 2))  # type: ignore[arg-type]  # format 2 is the same in every Python 3
    os.close(fd)
    os.rename(f"{run_dir}/state.new", f"{run_dir}/state")


def read_state(run_dir: str) -> State | None:
    """None when there is none, or none that can be read."""
    try:
        with open(f"{run_dir}/state", "rb") as file:
            state: State = marshal.load(file)
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return state


def start_time(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot; with the boot id it tells a process from a later one of the same number."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def lives(state: State) -> bool:
    """The container's first process is there, is the one that was started, and has not ended."""
    fields = _stat(state["pid"])
    return bool(fields) and fields[0] not in (b"Z", b"X") and int(fields[19]) == state["starttime"]


def _stat(pid: int) -> list[bytes]:
    """The fields after the name, which may hold anything; [] when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
