"""`python -m tests.bench [FIGURE]`: one JSON line per figure, its peer measured in the same run. A figure runs the module it is in.

Takes root, and mkfs.ext4 (Debian: e2fsprogs)."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from tests.bench import disk

MODULES = {
    "start": ("start_p50_vs_runc", "shim_uss_mib", "zygote_modules"),
    "pull": ("pull_vs_",),
    "apply": ("apply1_p50_s", "apply20_vs_swarm", "apply50_vs_swarm", "apply60x3_s", "remove20_vs_swarm"),
    "host": ("node_ready_s", "node_ready_20_s", "agent_idle_pss_mib"),
    "scale": ("scale_cold_start_s", "scale_rss_mib", "scale_cpu_ms_per_change", "scale_idle_cpu_percent"),
    "scale_place": ("scale_place_20000_s",),
}


def main(wanted: str) -> int:
    chosen = [module for module, figures in MODULES.items() if not wanted or any(each in wanted or wanted in each for each in figures)]
    if not chosen:
        known = ", ".join(figure for figures in MODULES.values() for figure in figures)
        print(f"no figure is named {wanted}; there are {known}", file=sys.stderr)
        return 2
    if disk.HOLDER not in os.environ:
        return disk.run_on_own_disk(sys.argv[1:])
    disk.mount_disk(Path(os.environ[disk.HOLDER]))
    print(f"# {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before", file=sys.stderr)
    for module in chosen:
        importlib.import_module(f"tests.bench.{module}").main()
    return 0


sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
