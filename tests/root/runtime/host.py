"""A place where the real runtime runs: directories and cgroups of its own, a root made of Debian's static busybox, and what is left
behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from moorage_agent.paths import Paths
from moorage_agent.runtime import cgroup, record
from moorage_agent.runtime.launch import Launch
from moorage_agent.runtime.log_reader import Line, read_lines
from moorage_agent.runtime.request import State
from moorage_agent.runtime.runtime import ContainerState, Runtime, Started

from tests.machine.debs import unpacked
from tests.machine.scratch import scratch_folder

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1000:\nlog:x:44:web\nextra:x:45:\n"
EXIT_TIMEOUT_S = 30.0
PYTHON = os.environ.get("MOORAGE_TEST_PYTHON", sys.executable)  # for zygote, shim and init: hosts have others than this one


def busybox_root(target: Path) -> Path:
    """A root file system with busybox under all its names."""
    for name in ("bin", "etc", "proc", "sys", "dev", "root", "home/web"):
        (target / name).mkdir(parents=True, exist_ok=True)
    (target / "tmp").mkdir(mode=0o1777)
    (target / "tmp").chmod(0o1777)
    shutil.copy2(next(unpacked("busybox-static").glob("**/bin/busybox")), target / "bin/busybox")
    for name in APPLETS.split():
        (target / "bin" / name).symlink_to("busybox")
    (target / "etc/passwd").write_text(PASSWD)
    (target / "etc/group").write_text(GROUP)
    return target


APPLETS = (
    "sh ash cat echo ls id sleep true false touch mkdir mknod mount umount unshare grep head ps kill hostname ip ping env printf test dd "
    "wc stat readlink chroot su sync rm ln mv cp seq yes tr tail find nc sysctl setsid nproc free stty tty usleep pwd sort cut trap df"
)


class Host:
    """One runtime's worth of directories. `layer`: the busybox root."""

    def __init__(self) -> None:
        self.folder = scratch_folder("runtime")
        self.paths = Paths(str(self.folder / "root"), str(self.folder / "run"))
        self.paths.make()
        self.layer = busybox_root(self.folder / "layer")
        self.cgroup_root = f"moorage-test-{os.getpid()}-{uuid.uuid4().hex[:6]}"

    def runtime(self) -> Runtime:
        return Runtime(self.paths, cgroup_root=self.cgroup_root, python=PYTHON)

    def image(self, **entries: str | bytes | None) -> Path:
        """A layer to put on top: path (with / as __) to content, a link when it starts with "->", a directory when None."""
        layer = self.folder / f"layer-{uuid.uuid4().hex[:8]}"
        layer.mkdir()
        for name, content in entries.items():
            path = layer / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir(exist_ok=True)
            elif isinstance(content, str) and content.startswith("->"):
                path.symlink_to(content[2:])
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
                path.chmod(0o755)
        return layer

    def left_behind(self) -> dict[str, object]:
        """Everything a container could leave: to be the same before and after."""
        mounts = Path("/proc/self/mountinfo").read_text()
        return {
            "cgroups": sorted(cgroup.Cgroups(cgroup.mounted(), self.cgroup_root).names()),
            "mounts": [line for line in mounts.splitlines() if str(self.folder) in line],
            "tasks": sorted(os.listdir(self.paths.tasks)),
            "run": sorted(os.listdir(f"{self.paths.run}/tasks")),
            "processes": [pid for pid, name in self.processes().items() if name != "moorage-zygote"],
        }

    def processes(self) -> dict[int, str]:
        """Ours on the machine, by the mark every one of them carries: the zygote's arguments name its directory."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.paths.run in (entry / "cmdline").read_text().split("\0"):
                    name = (entry / "comm").read_text().strip()
                    if name.startswith("moorage-"):
                        found[int(entry.name)] = name
            except OSError:
                continue
        return found


class Container:
    """A container of a test: started with `launch` fields, read back as people would."""

    def __init__(self, host: Host, runtime: Runtime, **fields: Any) -> None:
        self.host, self.runtime = host, runtime
        self.uid = fields.pop("uid", None) or str(uuid.uuid4())
        below = () if fields.pop("only_image", False) else (host.layer,)
        layers = tuple(map(str, (*fields.pop("image", ()), *below)))
        self.launch = Launch(uid=self.uid, run=fields.pop("run", 1), layers=layers, **fields)

    async def start(self) -> Started:
        return await self.runtime.start(self.launch)

    async def ended(self) -> ContainerState:
        """Wait for this container's end, others' go to whoever asks for them next."""
        deadline = asyncio.get_running_loop().time() + EXIT_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            state = self.state()
            if state is not None and state.exit is not None:
                return state
            await asyncio.sleep(0.01)
        raise TimeoutError(f"{self.launch.argv} did not end; so far: {self.output()!r}")

    def state(self) -> ContainerState | None:
        return next((state for state in self.runtime.observe() if state.uid == self.uid), None)

    @property
    def facts(self) -> State:
        facts = record.read_state(self.host.paths.task_run(self.uid))
        assert facts is not None
        return facts

    def lines(self) -> list[Line]:
        return list(read_lines(self.runtime.log_dir(self.uid)))

    def output(self) -> str:
        return b"".join(line.text for line in self.lines()).decode(errors="replace")

    async def until_output(self, text: str) -> None:
        for _ in range(1000):
            if text in self.output():
                return
            await asyncio.sleep(0.01)
        raise TimeoutError(f"{text!r} is not in {self.output()!r}")
