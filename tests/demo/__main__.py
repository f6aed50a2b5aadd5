"""`python -m tests.demo [--clean]`. KEEP=1 leaves the swarm running until `make demo-clean`."""

from __future__ import annotations

import os
import sys

from tests.demo import keeper
from tests.demo.play import play


def main() -> int:
    if "--clean" in sys.argv[1:]:
        return keeper.clean()
    if os.geteuid() != 0:
        print("make demo makes namespaces, cgroups and mounts: run it as root", file=sys.stderr)
        return 1
    return keeper.run(play, keep=os.environ.get("KEEP") == "1")


sys.exit(main())
