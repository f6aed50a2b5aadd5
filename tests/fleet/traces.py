"""What a program can leave behind on a host, as plain comparable values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.fleet import cgroups, links


@dataclass(frozen=True)
class Process:
    """`pid` is this machine's, `inside` that of its innermost namespace. `command` is its arguments joined by blanks."""

    pid: int
    inside: int
    parent: int
    name: str
    command: str


@dataclass(frozen=True)
class Traces:
    """Commands of processes, mount points, control groups as hierarchy:path, links, Unix sockets by path."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    cgroups: tuple[str, ...]
    links: tuple[str, ...]

    def since(self, before: Traces) -> list[str]:
        """What is here and was not before; empty when nothing was left behind."""
        found = []
        for kind in ("processes", "mounts", "cgroups", "links"):
            earlier = list(getattr(before, kind))
            for item in getattr(self, kind):
                if item in earlier:
                    earlier.remove(item)
                else:
                    found.append(f"{kind}: {item}")
        return found


def process_of(pid: int) -> Process | None:
    """None when it is gone, or a zombie nobody has reaped yet."""
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    if status["State"].startswith(("Z", "X")):
        return None
    words = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return Process(pid, int(status["NSpid"].split()[-1]), int(status["PPid"]), status["Name"], words)


def traces_of(group: str, pid: int) -> Traces:
    """Of the host whose control group is `group` and whose first process is `pid`."""
    found = [process for pid in cgroups.processes(group) if (process := process_of(pid)) is not None]
    return Traces(
        processes=tuple(sorted(constant_title(process) for process in found)),
        mounts=tuple(sorted(mounts_of(Path(f"/proc/{pid}/mountinfo").read_text()))),
        cgroups=tuple(sorted(groups_below(group))),
        links=tuple(sorted(link["ifname"] for link in links.show("link", within=pid))),
    )


def constant_title(process: Process) -> str:
    """sshd's listener shows in its title how many connections are not logged in yet."""
    return "sshd [listener]" if "[listener]" in process.command else process.command


def mounts_of(mountinfo: str) -> list[str]:
    return [line.split(" ")[4] for line in mountinfo.splitlines()]


def groups_below(group: str) -> list[str]:
    found = []
    for hierarchy in cgroups.of_this_machine():
        top = hierarchy.mountpoint / group
        below = [path.relative_to(top) for path in top.rglob("*") if path.is_dir()]
        found += [f"{hierarchy.mountpoint.name}:{path}" for path in below]
    return found
