"""Which hierarchies a host has, from the text of its mountinfo."""

from __future__ import annotations

import pytest
from moorage_agent.runtime.cgroup import Cgroups, Hierarchy, hierarchies

V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = """
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
V1_FOUND = [
    Hierarchy("/sys/fs/cgroup/cpu,cpuacct", 1, ("cpu", "cpuacct")),
    Hierarchy("/sys/fs/cgroup/memory", 1, ("memory",)),
    Hierarchy("/sys/fs/cgroup/pids", 1, ("pids",)),
    Hierarchy("/sys/fs/cgroup/devices", 1, ("devices",)),
]


@pytest.mark.parametrize(
    ("mountinfo", "controllers", "expected"),
    [
        pytest.param(V2, "cpuset cpu io memory pids", [Hierarchy("/sys/fs/cgroup", 2, ("memory", "cpu", "pids"))], id="version 2"),
        pytest.param(V1, "", V1_FOUND, id="version 1"),
        pytest.param(V1 + UNIFIED, "", [*V1_FOUND, Hierarchy("/sys/fs/cgroup/unified", 2, ())], id="hybrid"),
        pytest.param("22 27 0:21 / /proc rw - proc proc rw", "", [], id="none"),
        pytest.param(
            V1.replace("cgroup rw,memory", "cgroup rw,blkio") + UNIFIED,
            "memory",
            [V1_FOUND[0], *V1_FOUND[2:], Hierarchy("/sys/fs/cgroup/unified", 2, ("memory",))],
            id="memory moved to version 2",
        ),
        pytest.param(
            "1 0 0:29 /../.. /host/memory rw - cgroup cgroup rw,memory\n2 0 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
            "",
            [Hierarchy("/sys/fs/cgroup/memory", 1, ("memory",))],
            id="the mount of our own cgroup namespace",
        ),
        pytest.param(
            "1 0 0:29 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n" + V2,
            "pids",
            [Hierarchy("/sys/fs/cgroup", 2, ("pids",))],
            id="covered",
        ),
        pytest.param(
            "1 0 0:29 / /a\\040b rw shared:3 master:1 - cgroup cgroup rw,pids", "", [Hierarchy("/a b", 1, ("pids",))], id="blank and fields"
        ),
    ],
)
def test_hierarchies(mountinfo: str, controllers: str, expected: list[Hierarchy]) -> None:
    found = hierarchies(mountinfo, controllers)
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_controllers_are_looked_up_by_themselves() -> None:
    cgroups = Cgroups(hierarchies(V1.replace("cgroup rw,memory", "cgroup rw,blkio") + UNIFIED, "memory"), "ours")
    assert cgroups.top_of("memory") == "/sys/fs/cgroup/unified/ours"
    assert cgroups.top_of("cpuacct") == "/sys/fs/cgroup/cpu,cpuacct/ours"
    assert cgroups.versions == {"cpu": 1, "cpuacct": 1, "pids": 1, "devices": 1, "memory": 2}
    assert cgroups.tops()[-1] == "/sys/fs/cgroup/unified/ours"


def test_a_scope_of_systemd_is_where_we_work_in_version_2() -> None:
    cgroups = Cgroups(hierarchies(V2, "memory cpu pids"), "ours", v2_base="/moorage.slice/moorage-runtime-1.scope")
    assert cgroups.tops() == ["/sys/fs/cgroup/moorage.slice/moorage-runtime-1.scope/ours"]
