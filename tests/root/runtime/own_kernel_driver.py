"""Runs inside a host with its own kernel, by that host's Python alone: starts containers and prints what was seen as one JSON object.

Usage: python3 -I own_kernel_driver.py AGENT_FOLDER LAYER
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from moorage_agent.paths import Paths
from moorage_agent.protocol import Resources, Security
from moorage_agent.runtime import record
from moorage_agent.runtime.launch import Bind, Launch, Tmpfs
from moorage_agent.runtime.log_reader import read_lines
from moorage_agent.runtime.runtime import Runtime

LAYER = sys.argv[2]


async def main() -> None:
    paths = Paths()
    paths.make()
    runtime = Runtime(paths)
    await runtime.ensure_zygote()
    seen: dict[str, object] = {"features": {feature.name: feature.present for feature in runtime.features()}}
    zygote = (await runtime._client.facts()).pid
    seen["zygote_cgroup"] = Path(f"/proc/{zygote}/cgroup").read_text().strip()
    seen["oom_policy"] = property_of_scope("OOMPolicy", str(seen["zygote_cgroup"]))
    for name, probe in PROBES.items():
        seen[name] = await probe(runtime)
    seen["tasks"] = os.listdir(paths.tasks)
    seen["cgroups"] = [str(path) for top in runtime._tops() for path in Path(top).glob("*/*.*") if path.name[36:37] == "."]
    runtime.close()
    print(json.dumps(seen))


def property_of_scope(name: str, zygote_cgroup: str) -> str:
    scope = next(part for part in zygote_cgroup.split("/") if part.endswith(".scope"))
    return subprocess.run(["systemctl", "show", "-p", name, "--value", scope], capture_output=True, text=True, check=True).stdout.strip()


async def finish(runtime: Runtime, line: str, **fields: object) -> dict[str, object]:
    launch = Launch(uid=str(uuid.uuid4()), run=1, layers=(LAYER,), argv=("/bin/sh", "-c", line), **fields)  # type: ignore[arg-type]
    await runtime.start(launch)
    state = await asyncio.wait_for(runtime.next_exit(), 60)
    output = b"".join(part.text for part in read_lines(runtime.log_dir(launch.uid))).decode()
    await runtime.remove(launch.uid)
    assert state.exit is not None
    return {"code": state.exit.code, "oom": state.exit.oom_killed, "output": output}


async def limits(runtime: Runtime) -> object:
    resources = Resources(memory_limit=64 << 20, memory_reservation=32 << 20, pids_limit=77, cpu_limit=1500, cpu_reservation=1000)
    names = "memory.max memory.swap.max memory.low pids.max cpu.max cpu.weight"
    return await finish(
        runtime, f"cd /sys/fs/cgroup; cat {names}; touch x 2>/dev/null && echo WRITTEN; cat /proc/self/cgroup", resources=resources
    )


async def memory(runtime: Runtime) -> object:
    return await finish(runtime, "tail /dev/zero", resources=Resources(memory_limit=24 << 20))


async def processes(runtime: Runtime) -> object:
    return await finish(runtime, "exec 2>&1; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", resources=Resources(pids_limit=5))


async def devices(runtime: Runtime) -> object:
    line = "exec 2>&1; mknod /dev/m c 1 1 && cat /dev/m; mknod /dev/n c 1 3 && cat /dev/n && echo null works"
    return await finish(runtime, line, security=Security(cap_add=("MKNOD",)))


async def profile(runtime: Runtime) -> object:
    line = "exec 2>&1; cat /proc/self/attr/apparmor/current /proc/self/attr/current; echo x > /proc/sysrq-trigger"
    return await finish(runtime, line)


async def mounts(runtime: Runtime) -> object:
    """systemd shares every mount of the host; what a container mounts in its volume stays with the container."""
    os.mkdir("/root/volume")
    seen = await finish(runtime, "grep -c ' /data/x ' /proc/self/mountinfo", mounts=(Bind("/root/volume", "/data"), Tmpfs("/data/x")))
    outside = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/root/volume" in line]
    return {"inside": seen["output"], "outside": outside}


async def adoption(runtime: Runtime) -> object:
    """Kill zygote and shim under a running container; a new zygote sees to its end."""
    launch = Launch(
        uid=str(uuid.uuid4()), run=1, layers=(LAYER,), argv=("/bin/sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.1; done")
    )
    await runtime.start(launch)
    await asyncio.sleep(0.5)
    state = record.read_state(runtime.paths.task_run(launch.uid))
    assert state is not None
    os.kill((await runtime._client.facts()).pid, 9)
    os.kill(state["shim"], 9)
    await runtime.ensure_zygote()
    await asyncio.sleep(1)
    answer = await runtime.exec(launch.uid, ["echo", "still here"], timeout_s=20)
    runtime.signal(launch.uid, 15)
    ended = await asyncio.wait_for(runtime.next_exit(), 60)
    await runtime.remove(launch.uid)
    return {"exec": answer.output.decode(), "code": ended.exit.code if ended.exit else "alive"}


async def host_pid(runtime: Runtime) -> object:
    launch = Launch(
        uid=str(uuid.uuid4()), run=1, layers=(LAYER,), argv=("/bin/sh", "-c", "sleep 4242 & sleep 4242"), security=Security(pid="Host")
    )
    await runtime.start(launch)
    await asyncio.sleep(0.3)
    runtime.kill(launch.uid)
    await asyncio.wait_for(runtime.next_exit(), 60)
    await runtime.remove(launch.uid)
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in os.listdir("/proc") if pid.isdigit() and os.path.exists(f"/proc/{pid}")]
    return names.count(b"sleep\x004242\x00")


PROBES = {
    "limits": limits,
    "memory": memory,
    "processes": processes,
    "devices": devices,
    "profile": profile,
    "mounts": mounts,
    "adoption": adoption,
    "host_pid": host_pid,
}

asyncio.run(main())
