"""The first process of a bare host: makes the host's world inside fresh namespaces, starts sshd, then only reaps.

Run in new namespaces by unshare(1), as `python -I -S init.py CONFIG READY`. CONFIG is a JSON file (see disk.py);
to READY goes one line, this process's id as the machine sees it, when sshd runs. Everything is imported before the root changes.
Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fleet import cgroups, kernel

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse", "net/tun", "loop-control")
QUIET = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


def main() -> None:
    ready = open(sys.argv[2], "w")  # noqa: SIM115 - its path is gone when there is something to say
    config = json.loads(Path(sys.argv[1]).read_text())
    pid = int(os.readlink("/proc/self"))  # this /proc is still the machine's
    cgroups.join(config["group"])
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    make_root(config)
    kernel.set_hostname(config["name"])
    kernel.change_root(f"{config['folder']}/root")
    os.environ.clear()
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.spawnv(os.P_WAIT, "/usr/sbin/sshd", ["/usr/sbin/sshd"])
    ready.write(f"{pid}\n")
    ready.close()
    reap_forever()


def make_root(config: dict[str, Any]) -> None:
    folder = config["folder"]
    root = f"{folder}/root"
    kernel.bind(root, root)  # pivot_root wants a mount point
    for name in ("usr", "etc"):
        # The lower layers are the machine's folders one by one: an overlay refuses (ELOOP) an upper layer that lies below its lower one.
        layers = f"lowerdir={config['packages']}/{name}:/{name},upperdir={folder}/{name},workdir={folder}/work-{name}"
        kernel.mount("overlay", f"{root}/{name}", "overlay", 0, layers)
    kernel.mount("proc", f"{root}/proc", "proc", QUIET)
    kernel.mount("sysfs", f"{root}/sys", "sysfs", QUIET)
    kernel.mount("tmpfs", f"{root}/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    Path(root, "run/sshd").mkdir(mode=0o755)
    make_devices(f"{root}/dev")
    mount_cgroups(root)
    if config["image"] is not None:
        mount_image(config["image"], f"{root}/var/lib/moorage")
    for source, target in config["read_only"].items():
        kernel.bind(source, f"{root}{target}", read_only=True)
    kernel.bind(f"{folder}/boot_id", f"{root}/proc/sys/kernel/random/boot_id", read_only=True)


def make_devices(dev: str) -> None:
    kernel.mount("tmpfs", dev, "tmpfs", kernel.MS_NOSUID, "mode=755")
    for name in filter(lambda name: os.path.exists(f"/dev/{name}"), DEVICES):
        like = os.stat(f"/dev/{name}")
        os.makedirs(os.path.dirname(f"{dev}/{name}"), exist_ok=True)
        os.mknod(f"{dev}/{name}", like.st_mode, like.st_rdev)
        os.chmod(f"{dev}/{name}", stat.S_IMODE(like.st_mode))
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")):
        os.symlink(target, f"{dev}/{name}")
    for name, kind, data in (
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=620"),
        ("shm", "tmpfs", "mode=1777"),
        ("mqueue", "mqueue", ""),
    ):
        os.mkdir(f"{dev}/{name}")
        kernel.mount(kind, f"{dev}/{name}", kind, kernel.MS_NOSUID, data)


def mount_cgroups(root: str) -> None:
    """Mounted from inside its control group namespace, each hierarchy begins at this host's own group."""
    found = cgroups.of_this_machine()
    tops = [hierarchy.mountpoint for hierarchy in found]
    if Path("/sys/fs/cgroup") not in tops:
        kernel.mount("tmpfs", f"{root}/sys/fs/cgroup", "tmpfs", QUIET, "mode=755")
        copy_links("/sys/fs/cgroup", f"{root}/sys/fs/cgroup")
    for hierarchy in found:
        target = f"{root}{hierarchy.mountpoint}"
        os.makedirs(target, exist_ok=True)
        kernel.mount(hierarchy.kind, target, hierarchy.kind, QUIET, hierarchy.options)
        if hierarchy.kind == "cgroup2" and Path(target, "cgroup.controllers").read_text().strip():
            leave_top(Path(target))


def copy_links(source: str, target: str) -> None:
    """cpu -> cpu,cpuacct and the like."""
    for entry in os.scandir(source):
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), f"{target}/{entry.name}")


def leave_top(top: Path) -> None:
    """A real machine's topmost group may pass controllers on although processes are in it; this host's topmost may not."""
    (top / cgroups.LEAF).mkdir()
    (top / cgroups.LEAF / "cgroup.procs").write_text("0")
    cgroups.pass_on_controllers(top)


def mount_image(image: str, target: str) -> None:
    status = os.spawnvp(os.P_WAIT, "mount", ["mount", "-o", "loop", image, target])
    if status != 0:
        raise OSError(f"cannot mount {image} on {target}: mount ended with {status}")


def reap_forever() -> None:
    """Blocked only now: a mask is inherited, and sshd needs to hear of its children."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        reap()
        signal.sigwait({signal.SIGCHLD})


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
