"""Figures start_p50_vs_runc and shim_uss_mib: what it costs to have a container, beside runc with the same root, limits and filter.

Ours is measured from the daemon's call to the program's execve, runc from spawning `runc run` to the end of `/bin/true`; both in turn, so
that what else the machine does hits both. runc keeps no logs, no exit record and no supervisor, and mounts no overlay.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

from moorage_agent.paths import Paths
from moorage_agent.protocol import Resources
from moorage_agent.runtime import record, seccomp_profile
from moorage_agent.runtime.launch import Launch
from moorage_agent.runtime.runtime import Runtime

from tests.agent.runtime.test_imports import imported
from tests.bench.figure import figure, show
from tests.machine.debs import unpacked
from tests.machine.scratch import scratch_folder
from tests.root.runtime.host import busybox_root

STARTS, PAUSE_S, IDLE = 60, 0.05, 20
LIMITS = Resources(cpu_limit=1000, memory_limit=64 << 20, pids_limit=512)


def measure_start(starts: int = STARTS) -> list[dict[str, Any]]:
    """Start /bin/true `starts` times with each in turn; then look at the memory of idle supervisors."""
    return asyncio.run(_measure(starts))


async def _measure(starts: int) -> list[dict[str, Any]]:
    folder = scratch_folder("bench-start")
    layer = busybox_root(folder / "layer")
    runtime, peer = Runtime(_paths(folder)), Runc(folder, layer)
    try:
        await runtime.ensure_zygote()
        pairs = [(await _ours(runtime, layer), await asyncio.to_thread(peer.run)) for _ in range(starts)]
        uss = await _idle_supervisors(runtime, layer)
    finally:
        for state in runtime.observe():
            await runtime.remove(state.uid)
        await runtime.stop_zygote()
        runtime.close()
        shutil.rmtree(folder)
    ours, theirs = ([seconds * 1000 for seconds in column] for column in zip(*pairs, strict=True))
    return [figure("start_p50_vs_runc", ours, "ms", theirs), figure("shim_uss_mib", uss, "MiB"), zygote_modules()]


def zygote_modules() -> dict[str, Any]:
    """Of the standard library, beyond the bare interpreter."""
    names = [name for name in imported() if not name.startswith("moorage_agent")]
    return figure("zygote_modules", [len(names)], "modules")


def _paths(folder: Path) -> Paths:
    paths = Paths(str(folder / "root"), str(folder / "run"))
    paths.make()
    return paths


async def _ours(runtime: Runtime, layer: Path) -> float:
    launch = Launch(uid=str(uuid.uuid4()), run=1, layers=(str(layer),), argv=("/bin/true",), resources=LIMITS)
    await asyncio.sleep(PAUSE_S)
    began = time.perf_counter()
    await runtime.start(launch)
    took = time.perf_counter() - began
    await runtime.next_exit()
    await runtime.remove(launch.uid)
    return took


async def _idle_supervisors(runtime: Runtime, layer: Path) -> list[float]:
    """Unique memory of each supervisor, MiB."""
    uids = [str(uuid.uuid4()) for _ in range(IDLE)]
    for uid in uids:
        await runtime.start(Launch(uid=uid, run=1, layers=(str(layer),), argv=("/bin/sleep", "1000"), resources=LIMITS))
    states = [record.read_state(runtime.paths.task_run(uid)) for uid in uids]
    return [_unique_kib(state["shim"]) / 1024 for state in states if state is not None]


def _unique_kib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


class Runc:
    """`runc run` of a bundle with an own root directory, the same limits, and Docker's way of mounts and masks."""

    def __init__(self, folder: Path, layer: Path) -> None:
        self.program = next(unpacked("runc").glob("**/bin/runc"))
        self.bundle = folder / "bundle"
        self.state = folder / "runc"
        self.bundle.mkdir()
        subprocess.run(["cp", "-a", layer, self.bundle / "rootfs"], check=True)
        subprocess.run([self.program, "spec", "--bundle", self.bundle], check=True)
        config = json.loads((self.bundle / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": ["/bin/true"]}
        config["root"]["readonly"] = False
        config["linux"]["resources"] |= {"memory": {"limit": 64 << 20}, "cpu": {"quota": 100000, "period": 100000}, "pids": {"limit": 512}}
        config["linux"]["cgroupsPath"] = f"/moorage-bench-runc-{os.getpid()}"
        config["linux"]["seccomp"] = _seccomp()
        (self.bundle / "config.json").write_text(json.dumps(config))

    def run(self) -> float:
        name = f"bench-{uuid.uuid4().hex[:12]}"
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        command = [self.program, "--root", self.state, "run", "--bundle", self.bundle, name]
        subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return time.perf_counter() - began


def _seccomp() -> dict[str, Any]:
    """The same profile in runc's words."""
    names = [*seccomp_profile.ALWAYS, "clone", "socket", "personality", "arch_prctl", "chroot"]
    rules = [{"names": names, "action": "SCMP_ACT_ALLOW"}]
    return {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules}


def main() -> None:
    for line in measure_start():
        show(line)


if __name__ == "__main__":
    main()
