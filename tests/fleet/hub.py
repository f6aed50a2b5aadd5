"""The process a bridge lives in: it holds the bridge's network namespace and clears everything away when its starter is gone.

Run as `unshare --net python -I -S hub.py CGROUP FOLDER`. It ends when its standard input does: because the bridge was closed, or because
the process that made it died, in whichever way. With its network namespace the bridge and all links into it disappear.
Standard library only.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fleet import cgroups


def main() -> None:
    group, folder = sys.argv[1:]
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    print("ready", flush=True)
    sys.stdin.read()
    cgroups.destroy(group)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
