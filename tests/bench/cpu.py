"""CPU seconds of processes and of all that descend from them, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """utime and stime of the process and of its children that have ended and were waited for, proc(5); 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK


def smaps(pid: int, *names: str) -> dict[str, int]:
    """Bytes of /proc/PID/smaps_rollup: "Pss", "Private_Clean", "Private_Dirty"."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return {name: found.get(name, 0) for name in names}


def pss(pids: Iterable[int]) -> int:
    return sum(smaps(pid, "Pss")["Pss"] for pid in pids)
