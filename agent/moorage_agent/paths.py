"""Where the agent keeps things. `root` is the disk (survives a reboot), `run` is this boot (a tmpfs on most hosts). All of it 0700 root.

root/agent/<sha256>/     versions of the agent
root/state/              host id, binding, the document in force, the agent's log
root/tasks/<uid>/        one task: record, exits, log, upper and work directories
root/images/             layers, configs
root/volumes/<key>/      named volumes, never deleted with a task
root/configs/            values that are not secret
run/agent.sock, run/agent.lock    the daemon's socket; its version, locked while it lives
run/dial.lock                     held by whoever starts or replaces the daemon
run/heard                         when an operator was last heard
run/zygote.sock, run/exits.sock, run/cgroup-bases, run/tasks/<uid>/   the runtime's
run/secrets/                      a tmpfs the agent mounts itself
"""

from __future__ import annotations

import os
import zlib

from moorage_agent.errors import InvalidTask

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Paths:
    """A plain class, without dataclasses and re: `dial` imports it, and starts in half the time."""

    __slots__ = ("boot_id_file", "root", "run")

    def __init__(
        self, root: str = "/var/lib/moorage", run: str = "/run/moorage", boot_id_file: str = "/proc/sys/kernel/random/boot_id"
    ) -> None:
        self.root, self.run, self.boot_id_file = root, run, boot_id_file

    @property
    def standard(self) -> bool:
        """True for the one agent of a host, false for those of tests beside it."""
        return (self.root, self.run) == ("/var/lib/moorage", "/run/moorage")

    @property
    def under_systemd(self) -> bool:
        """Whether this agent is a unit: it is the one of a host that systemd has booted, sd_booted(3)."""
        return self.standard and os.path.isdir("/run/systemd/system")

    @property
    def cgroup_root(self) -> str:
        """The name of this agent's directory in every cgroup hierarchy."""
        return "moorage" if self.standard else f"moorage-{zlib.crc32(self.run.encode()):08x}"

    @property
    def tasks(self) -> str:
        return f"{self.root}/tasks"

    @property
    def images(self) -> str:
        return f"{self.root}/images"

    @property
    def volumes(self) -> str:
        return f"{self.root}/volumes"

    @property
    def configs(self) -> str:
        return f"{self.root}/configs"

    @property
    def state(self) -> str:
        return f"{self.root}/state"

    @property
    def secrets(self) -> str:
        return f"{self.run}/secrets"

    @property
    def agent_socket(self) -> str:
        return f"{self.run}/agent.sock"

    @property
    def agent_lock(self) -> str:
        """Holds the daemon's version as text, and a lock for as long as it lives."""
        return f"{self.run}/agent.lock"

    @property
    def dial_lock(self) -> str:
        """Held by the one `dial` that starts or replaces the daemon."""
        return f"{self.run}/dial.lock"

    @property
    def agent_log(self) -> str:
        return f"{self.state}/agent.log"

    @property
    def zygote_socket(self) -> str:
        return f"{self.run}/zygote.sock"

    def task(self, uid: str) -> str:
        """The task's directory on disk. Raises InvalidTask when `uid` is no Kubernetes uid."""
        return f"{self.tasks}/{task_uid(uid)}"

    def task_run(self, uid: str) -> str:
        """The task's directory of this boot. Raises InvalidTask when `uid` is no Kubernetes uid."""
        return f"{self.run}/tasks/{task_uid(uid)}"

    def volume(self, key: str) -> str:
        """The directory of the volume `key`: namespace/stack/name, or namespace/stack/name/slot. Raises InvalidTask for any other shape.

        The slot is joined to the name, as name@slot: a slot's volume must not lie inside another volume.
        """
        parts = key.split("/")
        if len(parts) not in (3, 4) or not all(map(_harmless, parts)):
            raise InvalidTask("InvalidVolume", f"volume key {key!r} is not namespace/stack/name or namespace/stack/name/slot")
        return f"{self.volumes}/{parts[0]}/{parts[1]}/{'@'.join(parts[2:])}"

    def boot_id(self) -> str:
        with open(self.boot_id_file, encoding="ascii") as file:
            return file.read().strip()

    def make(self) -> None:
        """Make the directories, for root alone."""
        for path in (self.root, self.run, self.state, self.tasks, self.images, self.volumes, self.configs, f"{self.run}/tasks"):
            os.makedirs(path, mode=0o700, exist_ok=True)
        for path in (self.root, self.run):
            os.chmod(path, 0o700)


def task_uid(text: str) -> str:
    """`text`, known to be harmless in a path."""
    if len(text) != 36 or text.strip("0123456789abcdef-"):
        raise InvalidTask("InvalidUid", f"task uid {text!r} is not a Kubernetes uid (36 characters of 0-9, a-f and -)")
    return text


def _harmless(part: str) -> bool:
    return 0 < len(part) <= 253 and part[0] in _LETTERS and not part.strip(_LETTERS + "._-")
