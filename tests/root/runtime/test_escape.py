"""Ways out of containers that worked somewhere once. One test for each, named for what was learned."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from moorage_agent.errors import InvalidTask, StartFailed
from moorage_agent.protocol import Security, Sysctl
from moorage_agent.runtime.launch import Bind

from tests.root.runtime.conftest import Make, Run
from tests.root.runtime.host import Container, Host
from tests.root.runtime.python_image import python_argv, python_layer, python_mounts


async def refused(container: Container) -> str:
    with pytest.raises(StartFailed) as failed:
        await container.start()
    assert container.host.left_behind()["cgroups"] == []
    return failed.value.message


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
async def test_kernel_file_systems_are_never_mounted_through_a_link(make: Make, host: Host, name: str) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2026-41579, CVE-2026-47766."""
    layer = host.image(**{name: "->tmp", "tmp__x": ""})
    assert f"the image has no directory /{name}" in await refused(make("/bin/true", image=(layer,)))


async def test_null_device_of_the_image_is_not_used_for_masks(run: Run, host: Host) -> None:
    """CVE-2025-31133: /dev/null was a link, and what it pointed at was bound over the masked paths."""
    layer = host.image(dev__null="->/proc/sys/kernel/core_pattern")
    container = await run("stat -c '%t:%T' /dev/null /proc/interrupts; cat /proc/interrupts | wc -c", image=(layer,))
    assert container.output() == "1:3\n1:3\n0\n"


async def test_null_device_replaced_by_a_mount_is_not_used_either(run: Run, host: Host) -> None:
    source = host.folder / "not-null"
    source.write_text("text")
    container = await run("cat /dev/null; stat -c '%t:%T' /proc/interrupts", mounts=(Bind(str(source), "/dev/null"),))
    assert container.output() == "text1:3\n"


async def test_working_directory_cannot_be_a_descriptor_of_the_host(make: Make) -> None:
    """CVE-2024-21626: cwd=/proc/self/fd/7 was a directory of the host that init had open."""
    for number in range(3, 24):
        container = make("/bin/sh", "-c", "pwd; ls ../../../../../..", cwd=f"/proc/self/fd/{number}")
        assert "working directory" in await refused(container)


async def test_only_the_standard_descriptors_are_open(make: Make, host: Host) -> None:
    container = make(*python_argv("print(sorted(os.listdir('/proc/self/fd')))"), image=(python_layer(host),), mounts=python_mounts())
    await container.start()
    await container.ended()
    assert container.output() == "['0', '1', '2', '3']\n"  # 3 reads the directory


async def test_entrypoint_that_is_our_own_executable_cannot_change_it(make: Make, host: Host) -> None:
    """CVE-2019-5736: /proc/self/exe as entrypoint runs what init is; it is a sealed copy."""
    script = "import os; print(os.readlink('/proc/self/exe')); open('/proc/self/exe', 'r+b')"
    container = make("/proc/self/exe", "-I", "-S", "-c", script, image=(python_layer(host),), mounts=python_mounts())
    before = Path(os.path.realpath(sys.executable)).read_bytes()
    try:
        await container.start()
        await container.ended()
    except StartFailed as failed:
        assert failed.step == "exec"  # noqa: PT017  the interpreter found no library of its own: just as well
    assert "rror" in container.output() or not container.output()
    assert Path(os.path.realpath(sys.executable)).read_bytes() == before


async def test_zygotes_executable_is_sealed(host: Host, make: Make) -> None:
    await make("/bin/true").start()
    (pid,) = [pid for pid, name in host.processes().items() if name == "moorage-zygote"]
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
    with pytest.raises(OSError, match=r"Text file busy|not permitted"):
        os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))


async def test_container_without_a_program_cannot_be_looked_at_by_another(make: Make, run: Run) -> None:
    """CVE-2016-9962: what is about to enter is not dumpable, so its descriptors are nobody's to read."""
    container = make("/bin/sleep", "100", init=True)
    started = await container.start()
    assert os.stat(f"/proc/{started.pid}/exe").st_uid == 0
    answer = await container.runtime.exec(
        container.uid, ["/bin/sh", "-c", "readlink /proc/1/exe || echo hidden; cat /proc/1/environ || echo hidden"], timeout_s=10
    )
    assert answer.output.count(b"hidden") == 2, answer.output


async def test_nothing_of_the_image_is_imported_or_loaded(make: Make, host: Host) -> None:
    """CVE-2019-14271: a library of the container was loaded by root of the host. Ours has no way left to load any."""
    prefix, version = Path(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    trap = "open('/trapped', 'w').close()\n"
    modules = ("os", "traceback", "linecache", "encodings/idna", "encodings/ascii", "pwd")
    names = [f"{prefix}/lib/{version}/{module}.py" for module in modules]
    entries = {name.strip("/").replace("/", "__"): trap for name in names}
    entries["lib__x86_64-linux-gnu__libnss_files.so.2"] = "trap"
    entries["etc__nsswitch.conf"] = "passwd: trap\n"
    container = make("/bin/ls", "/", image=(host.image(**entries),), user="web", groups=("log",))
    await container.start()
    assert (await container.ended()).exit.code == 0  # type: ignore[union-attr]
    assert "trapped" not in container.output()


@pytest.mark.parametrize("name", ["etc__passwd", "etc__group"])
async def test_passwd_that_is_a_pipe_does_not_block(make: Make, host: Host, name: str) -> None:
    layer = host.image()
    (layer / "etc").mkdir()
    os.mkfifo(layer / name.replace("__", "/"))
    container = make("/bin/true", image=(layer,))
    await asyncio.wait_for(container.start(), 10)
    assert (await container.ended()).exit.code == 0  # type: ignore[union-attr]


async def test_passwd_that_points_at_the_hosts_is_read_in_the_image(make: Make, host: Host) -> None:
    layer = host.image(etc__passwd="->/../../../../../../etc/real", etc__real="ghost:x:7:7::/:/bin/sh\n")
    container = make("/bin/cat", "/proc/self/status", image=(layer,), user="ghost")
    await container.start()
    await container.ended()
    assert "Uid:\t7\t7\t7\t7" in container.output()


async def test_passwd_full_of_nonsense_gives_a_clear_error(make: Make, host: Host) -> None:
    layer = host.image(etc__passwd=b"\0" * 4096 + b"web:x:notanumber:1\n" + b"x" * 1_000_000 + b"\nweb:x:99999999999:1::/:/x\n")
    assert "99999999999 is not below" in await refused(make("/bin/true", image=(layer,), user="web"))


async def test_group_id_that_means_no_change_is_refused(make: Make) -> None:
    for user in ("4294967295", "0:4294967295", "99999999999"):
        assert "4294967295" in await refused(make("/bin/true", user=user))


@pytest.mark.parametrize(
    ("link", "target"),
    [("/etc", "/m"), ("../../../../../../../../tmp", "/m"), ("/proc/self/root/tmp", "/m"), ("/proc/1/root", "/m/x"), ("/dev/fd", "/m")],
)
async def test_mount_targets_stay_inside_whatever_links_say(make: Make, host: Host, link: str, target: str) -> None:
    """CVE-2021-30465, CVE-2024-45310: mounts and directories outside of the root, by links in the image or a volume."""
    data = host.folder / "inside"
    data.mkdir(exist_ok=True)
    before = sorted(os.listdir("/etc")), host.left_behind()["mounts"]
    container = make("/bin/true", image=(host.image(m=f"->{link}"),), mounts=(Bind(str(data), target),))
    try:
        await container.start()
        await container.ended()
    except StartFailed as failed:
        assert failed.step.startswith("mount ")  # noqa: PT017  either way is right, the host must not notice
    assert (sorted(os.listdir("/etc")), host.left_behind()["mounts"]) == before


async def test_files_of_etc_replace_links_and_never_follow_them(run: Run, host: Host) -> None:
    layer = host.image(etc__resolv__conf="", etc__hosts="->/outside", outside="untouched")
    container = await run("cat /outside; test -L /etc/hosts || echo file; grep -c localhost /etc/hosts", image=(layer,))
    assert container.output() == "untouchedfile\n2\n"


async def test_etc_that_is_a_link_stays_inside(run: Run, host: Host) -> None:
    layer = host.folder / "etc-link"
    layer.mkdir()
    (layer / "bin").symlink_to("real/bin")
    (layer / "real").mkdir()
    for name in ("proc", "sys", "dev", "real/etc", "real/bin"):
        (layer / name).mkdir(exist_ok=True)
    (layer / "etc").symlink_to("../../../real/etc")
    (layer / "real/bin/sh").write_bytes((host.layer / "bin/busybox").read_bytes())
    (layer / "real/bin/sh").chmod(0o755)
    container = await run("read name < /real/etc/hostname; echo $name", hostname="box", image=(layer,), only_image=True)
    assert container.output() == "box\n"


@pytest.mark.parametrize("target", ["/proc/self/attr", "/proc", "/../proc/sys", "/"])
async def test_mounts_over_proc_or_the_root_are_refused(make: Make, host: Host, target: str) -> None:
    """CVE-2025-52881: what is mounted over /proc makes our writes to it land elsewhere."""
    with pytest.raises(InvalidTask):
        await make("/bin/true", mounts=(Bind(str(host.folder), target),)).start()


async def test_release_agent_cannot_be_set(run: Run) -> None:
    """CVE-2022-0492."""
    container = await run(
        "exec 2>&1; mkdir /tmp/c; mount -t cgroup -o memory c /tmp/c && echo MOUNTED; "
        "unshare -UrmC mount -t cgroup -o memory c /tmp/c && echo MOUNTED; "
        "for f in $(find /sys/fs/cgroup -name notify_on_release -o -name release_agent); do echo 1 > $f && echo WRITTEN; done"
    )
    assert "MOUNTED" not in container.output()
    assert "WRITTEN" not in container.output()


@pytest.mark.parametrize(
    "name", ["kernel.core_pattern", "kernel/core_pattern", "net.ipv4/../../kernel/core_pattern", "net..core", "vm.overcommit_memory"]
)
async def test_sysctls_of_the_host_are_refused(make: Make, name: str) -> None:
    """CVE-2022-0811."""
    with pytest.raises(InvalidTask):
        await make("/bin/true", security=Security(sysctls=(Sysctl(name, "1"),))).start()


async def test_container_cannot_ptrace_or_see_the_host(run: Run) -> None:
    container = await run("ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm")
    assert int(container.output().split()[0]) <= 4
