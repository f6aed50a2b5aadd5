"""Runs a command in a control group: `python -I -S join.py GROUP COMMAND...`. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.fleet import cgroups


def main() -> None:
    group, *command = sys.argv[1:]
    cgroups.join(group)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
