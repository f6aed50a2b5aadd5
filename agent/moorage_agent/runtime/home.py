"""What every process of the runtime finds in its memory: where things are, and what this host has."""

from __future__ import annotations

from moorage_agent.runtime import cgroup, confine


class Home:
    """Made once by the zygote, inherited by what it forks."""

    __slots__ = ("boot_id", "cgroups", "last_cap", "root", "run", "version")

    def __init__(self, *, root: str, run: str, boot_id: str, version: str, cgroups: cgroup.Cgroups) -> None:
        self.root, self.run, self.boot_id, self.version, self.cgroups = root, run, boot_id, version, cgroups
        self.last_cap = confine.last_capability()
