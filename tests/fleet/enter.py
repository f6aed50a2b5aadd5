"""Runs a command inside a bare host, in its control groups too: `python -I -S enter.py GROUP PID COMMAND...`. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fleet import cgroups


def main() -> None:
    group, pid, *command = sys.argv[1:]
    cgroups.join(group)
    os.execvp("nsenter", ["nsenter", f"--target={pid}", "--all", f"--wd=/proc/{pid}/root", "--", *command])


if __name__ == "__main__":
    main()
