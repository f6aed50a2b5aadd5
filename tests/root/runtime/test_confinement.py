"""What a container may not do, seen from inside. A line here that gets weaker is a hole."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from moorage_agent.protocol import Device, Resources, Security, Sysctl, Ulimit
from moorage_agent.runtime import capabilities, linux, syscall_table
from moorage_agent.runtime.launch import Bind, Tmpfs
from moorage_agent.runtime.runtime import Runtime

from tests.root.runtime.conftest import Make, Run
from tests.root.runtime.host import Host
from tests.root.runtime.python_image import python_argv, python_layer, python_mounts

SIG_IGN = 1
LIBRARY_SIGNAL = 32
NUMBERS = syscall_table.numbers(linux.MACHINE)


def status_fields(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


async def probe(make: Make, host: Host, code: str, **fields: object) -> list[str]:
    container = make(*python_argv(code), image=(python_layer(host),), mounts=python_mounts(), **fields)
    await container.start()
    state = await container.ended()
    assert state.exit is not None
    assert state.exit.code == 0, container.output()
    return container.output().splitlines()


async def test_first_process_has_eleven_capabilities_and_no_way_to_more(make: Make) -> None:
    container = make("/bin/cat", "/proc/self/status")
    await container.start()
    await container.ended()
    status = status_fields(container.output())
    mask = f"{capabilities.mask():016x}"
    assert mask == "00000000800405fb"
    assert [status[name] for name in ("CapPrm", "CapEff", "CapBnd")] == [mask] * 3
    assert [status[name] for name in ("CapInh", "CapAmb")] == [f"{0:016x}"] * 2
    assert (status["NoNewPrivs"], status["Seccomp"], status["SigIgn"], status["SigBlk"]) == ("1", "2", f"{0:016x}", f"{0:016x}")


async def test_what_the_agent_was_started_with_ignored_is_not_ignored_in_a_container(runtime: Runtime, make: Make) -> None:
    await runtime.stop_zygote()
    before = [disposition(signum, [SIG_IGN, 0, 0, 0]) for signum in (1, LIBRARY_SIGNAL)]
    await runtime.ensure_zygote()
    for signum, was in zip((1, LIBRARY_SIGNAL), before, strict=True):
        disposition(signum, was)
    container = make("/bin/cat", "/proc/self/status")
    await container.start()
    await container.ended()
    assert status_fields(container.output())["SigIgn"] == f"{0:016x}"


def disposition(signum: int, new: list[int]) -> list[int]:
    """Set it past the C library, which refuses its own signals; returns what it was."""
    old = (ctypes.c_ulong * 4)()
    wished = (ctypes.c_ulong * 4)(*new)
    number = NUMBERS["rt_sigaction"]
    assert ctypes.CDLL(None).syscall(ctypes.c_long(number), ctypes.c_long(signum), wished, old, ctypes.c_long(8)) == 0
    return list(old)


async def test_other_users_have_no_capability_in_hand(run: Run) -> None:
    container = await run("id; cat /proc/self/status; echo $HOME", user="web")
    status = status_fields(container.output())
    assert container.output().startswith("uid=1000(web) gid=1000(web) groups=44(log)")
    assert [status[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [f"{0:016x}"] * 4
    assert container.output().endswith("/home/web\n")


@pytest.mark.parametrize(
    ("user", "groups", "identity"),
    [
        ("1000", (), "uid=1000(web) gid=1000(web) groups=44(log)"),
        ("web:extra", (), "uid=1000(web) gid=45(extra)"),
        ("4242:4343", (), "uid=4242 gid=4343"),
        ("4242", ("extra",), "uid=4242 gid=0(root) groups=45(extra)"),
    ],
)
async def test_users_are_looked_up_in_the_image(run: Run, user: str, groups: tuple[str, ...], identity: str) -> None:
    assert (await run("id", user=user, groups=groups)).output().startswith(identity)


async def test_capabilities_can_be_added_and_dropped(run: Run) -> None:
    security = Security(cap_add=("NET_ADMIN",), cap_drop=("CAP_CHOWN",))
    status = status_fields((await run("cat /proc/self/status", security=security)).output())
    assert int(status["CapEff"], 16) == capabilities.mask(["NET_ADMIN"], ["CHOWN"])


async def test_what_the_kernel_shows_of_the_host_is_masked(run: Run) -> None:
    files = [f"/proc/{name}" for name in ("interrupts", "kcore", "keys", "timer_list") if os.path.exists(f"/proc/{name}")]
    folders = [path for path in ("/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap") if os.path.isdir(path)]
    container = await run(f"cat {' '.join(files)} | wc -c; ls -A {' '.join(folders)} | grep -v :$ | grep -c .")
    assert container.output() == "0\n0\n"


@pytest.mark.parametrize(
    "path",
    ["/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/proc/irq/x", "/sys/x", "/sys/fs/cgroup/x", "/sys/fs/cgroup/memory/tasks"],
)
async def test_what_the_kernel_is_told_cannot_be_written(run: Run, path: str) -> None:
    container = await run(f"exec 2>&1; echo 0 > {path} && echo WRITTEN")
    assert "WRITTEN" not in container.output()
    assert any(words in container.output() for words in ("Read-only", "nonexistent", "No such")), container.output()


async def test_own_cgroups_are_shown_and_the_hosts_path_is_not(run: Run) -> None:
    container = await run("cat /proc/self/cgroup; cat /proc/self/mountinfo", resources=Resources(memory_limit=64 << 20))
    assert container.uid not in "\n".join(line for line in container.output().splitlines() if "cgroup" in line)


async def test_limits_are_the_cgroups(run: Run) -> None:
    container = await run(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us "
        "|| cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max",
        resources=Resources(memory_limit=64 << 20, pids_limit=77, cpu_limit=1500),
    )
    numbers = [line.split()[0] for line in container.output().splitlines() if line[:1].isdigit()]
    assert numbers == [str(64 << 20), "77", "150000"]


async def test_more_processes_than_the_limit_are_refused(run: Run) -> None:
    container = await run("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", resources=Resources(pids_limit=5))
    assert "can't fork" in container.output()


async def test_container_killed_for_memory_says_so(run: Run) -> None:
    container = await run("tail /dev/zero", resources=Resources(memory_limit=24 << 20))
    state = container.state()
    assert state is not None
    assert state.exit is not None
    assert state.exit.oom_killed


async def test_only_the_standard_devices_work(run: Run) -> None:
    security = Security(cap_add=("MKNOD",))
    container = await run(
        "exec 2>&1; mknod /dev/mem1 c 1 1 && cat /dev/mem1; mknod /dev/sd b 8 0 && cat /dev/sd; mknod /dev/kmsg1 c 1 11 && cat /dev/kmsg1; "
        "mknod /dev/null1 c 1 3 && cat /dev/null1 && echo null works",
        security=security,
    )
    assert container.output().count("Operation not permitted") == 3, container.output()
    assert container.output().endswith("null works\n")


async def test_device_nodes_of_an_image_or_volume_have_no_power(run: Run, host: Host) -> None:
    layer, volume = host.image(), host.folder / "volume-with-node"
    volume.mkdir()
    for place in (layer, volume):
        os.mknod(place / "node", 0o20666, os.makedev(1, 5))
    container = await run("head -c1 /node; head -c1 /v/node", image=(layer,), mounts=(Bind(str(volume), "/v"),))
    assert container.output().count("Permission denied") == 2, container.output()


async def test_a_device_can_be_given(run: Run) -> None:
    disk = next(path for path in Path("/dev").iterdir() if path.is_block_device())
    security = Security(devices=(Device(str(disk), "/dev/disk/first", "r"),))
    container = await run(
        "exec 2>&1; test -b /dev/disk/first && head -c0 /dev/disk/first && echo readable; echo x >> /dev/disk/first", security=security
    )
    assert container.output().startswith("readable\n"), container.output()
    assert "Operation not permitted" in container.output()


async def test_privileged_is_honoured(run: Run) -> None:
    container = await run(
        "cat /proc/self/status; mkdir /mnt && mount -t tmpfs x /mnt && echo mounted",
        security=Security(privileged=True),
    )
    status = status_fields(container.output())
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("0", "0")
    assert int(status["CapEff"], 16) == int(status_fields(Path("/proc/self/status").read_text())["CapBnd"], 16) & capabilities.mask(["ALL"])
    assert "mounted" in container.output()


async def test_system_calls_that_are_refused(make: Make, host: Host) -> None:
    names = [
        "unshare",
        "mount",
        "setns",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "kexec_load",
        "open_by_handle_at",
    ]
    code = "".join(f"print({name!r}, call({NUMBERS[name]}, 0, 0, 0, 0, 0))\n" for name in names)
    code += f"print('clone', call({NUMBERS['clone']}, 0x10000000, 0, 0, 0, 0))\nprint('clone3', call({NUMBERS['clone3']}, 0, 88))\n"
    code += "print('new', call(5000))\nprint('x32', call(0x40000000 + 39))\n"
    answers = dict(line.split() for line in await probe(make, host, code))
    assert {name: answers[name] for name in names} == dict.fromkeys(names, "EPERM")
    assert (answers["clone"], answers["clone3"], answers["new"], answers["x32"]) == ("EPERM", "ENOSYS", "ENOSYS", "ENOSYS")


@pytest.mark.parametrize("family", [38, 40, 38 | 1 << 32, 40 | 1 << 32, 40 | 1 << 63 - 1])
async def test_dangerous_address_families_are_refused_with_any_high_bits(make: Make, host: Host, family: int) -> None:
    assert await probe(make, host, f"print(call({NUMBERS['socket']}, {family}, 1, 0))") == ["EPERM"]


async def test_ordinary_sockets_work_with_high_bits_or_without(make: Make, host: Host) -> None:
    code = "\n".join(f"print(call({NUMBERS['socket']}, {family}, 1, 0))" for family in (1, 2, 10, 2 | 1 << 32))
    assert await probe(make, host, code) == ["ok"] * 4


@pytest.mark.skipif(linux.MACHINE != "x86_64", reason="int 0x80 is of x86")
async def test_thirty_two_bit_system_calls_kill(make: Make, host: Host) -> None:
    code = """
    import mmap
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
    print(ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))())
    """
    container = make(*python_argv(code), image=(python_layer(host),), mounts=python_mounts())
    await container.start()
    assert (await container.ended()).exit.code == 128 + 31  # type: ignore[union-attr]


async def test_set_user_id_programs_gain_nothing(run: Run, host: Host) -> None:
    assert (await run("/su", user="web", image=(set_user_id(host),))).output() == "su: must be suid to work properly\n"


async def test_set_user_id_programs_work_where_new_privileges_are_allowed(run: Run, host: Host) -> None:
    container = await run("/su </dev/null", user="web", image=(set_user_id(host),), security=Security(no_new_privs=False))
    assert "must be suid" not in container.output()


def set_user_id(host: Host) -> Path:
    """A layer with busybox's su as an image would have it."""
    layer = host.image(su=(host.layer / "bin/busybox").read_bytes())
    (layer / "su").chmod(0o4755)
    return layer


async def test_network_is_its_own_with_loopback_up(run: Run) -> None:
    assert (await run("ip a | grep -c inet; ls /sys/class/net")).output() == "2\nlo\n"


async def test_ping_needs_no_privilege(make: Make, host: Host) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).connect(('127.0.0.1', 0)); print('ok')"
    assert await probe(make, host, code, user="1000") == ["ok"]


async def test_low_ports_need_no_privilege(run: Run) -> None:
    assert (await run("echo hello | nc -l -p 80 -w 1 & sleep 0.3; nc 127.0.0.1 80 </dev/null", user="web")).output() == "hello\n"


async def test_host_network_and_its_names(run: Run) -> None:
    container = await run("readlink /proc/self/ns/net; cat /etc/resolv.conf", network="Host")
    assert container.output() == os.readlink("/proc/self/ns/net") + "\n" + Path("/etc/resolv.conf").read_text()


async def test_host_pid_and_ipc(run: Run) -> None:
    container = await run("readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc", security=Security(pid="Host", ipc="Host"))
    assert container.output().split() == [os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/ipc")]


async def test_killing_a_container_in_the_hosts_pid_namespace_kills_its_children(make: Make, host: Host) -> None:
    container = make("/bin/sh", "-c", "sleep 4242 & sleep 4242 & echo up; sleep 4242", security=Security(pid="Host"))
    await container.start()
    await container.until_output("up")
    container.runtime.kill(container.uid)
    await container.ended()
    assert host.left_behind()["cgroups"] in ([], [("std", f"{container.uid}.1")])
    await container.runtime.remove(container.uid)
    assert host.left_behind()["cgroups"] == []


async def test_hostname_and_hosts(run: Run) -> None:
    container = await run(
        "hostname; cat /etc/hostname; grep box /etc/hosts; grep db /etc/hosts", hostname="box", hosts=(("10.0.0.7", "db"),)
    )
    assert container.output() == "box\nbox\n127.0.1.1\tbox\n10.0.0.7\tdb\n"


async def test_read_only_root(run: Run) -> None:
    container = await run(
        "exec 2>&1; touch /x; touch /tmp/x && echo tmp ok; cat /etc/hostname", read_only=True, hostname="box", mounts=(Tmpfs("/tmp"),)
    )
    assert "Read-only file system" in container.output()
    assert container.output().endswith("tmp ok\nbox\n")


async def test_mounts(run: Run, host: Host) -> None:
    data, secret = host.folder / "data", host.folder / "secret"
    data.mkdir(exist_ok=True)
    secret.write_text("s3cret")
    secret.chmod(0o440)
    mounts = (
        Bind(str(data), "/data"),
        Bind(str(data), "/frozen", read_only=True),
        Bind(str(secret), "/run/secrets/key", read_only=True),
        Tmpfs("/scratch", 1 << 20, 0o700),
    )
    container = await run(
        "exec 2>&1; echo kept > /data/f; echo x > /frozen/f; cat /run/secrets/key; echo; stat -c '%a' /run/secrets/key /scratch; "
        "df -k /scratch | tail -1 | tr -s ' ' | cut -d' ' -f2; grep -E ' /(data|scratch) ' /proc/self/mountinfo | grep -c nosuid,nodev",
        mounts=mounts,
    )
    assert (data / "f").read_text() == "kept\n"
    assert "Read-only file system" in container.output()
    assert container.output().splitlines()[-5:] == ["s3cret", "440", "700", "1024", "2"]


async def test_ulimits_sysctls_shm_and_oom_score(run: Run) -> None:
    security = Security(
        ulimits=(Ulimit("nofile", 100, 200), Ulimit("core", 0, 0)),
        sysctls=(Sysctl("net.core.somaxconn", "333"), Sysctl("kernel.msgmax", "5555")),
        shm_size=1 << 20,
        oom_score_adj=123,
    )
    container = await run(
        "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/self/oom_score_adj; "
        "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2",
        security=security,
    )
    assert container.output().split() == ["100", "200", "0", "333", "5555", "123", "1024"]


async def test_missing_working_directory_is_made(run: Run) -> None:
    assert (await run("pwd", cwd="/srv/app/current")).output() == "/srv/app/current\n"


async def test_working_directory_only_its_user_may_enter(run: Run, host: Host) -> None:
    volume = host.folder / "private"
    volume.mkdir(exist_ok=True)
    volume.chmod(0o700)
    os.chown(volume, 1000, 1000)
    security = Security(cap_drop=("ALL",))
    assert (await run("pwd", cwd="/p", user="web", mounts=(Bind(str(volume), "/p"),), security=security)).output() == "/p\n"


async def test_environment_is_what_was_asked_for_over_dockers_defaults(run: Run) -> None:
    container = await run("env | sort", env=("A=1", "PATH=/bin", "B=two words", "A=2"), hostname="box")
    assert container.output().splitlines() == ["A=2", "B=two words", "HOME=/root", "HOSTNAME=box", "PATH=/bin", "PWD=/", "SHLVL=1"]


async def test_standard_streams_can_be_opened_again_by_their_user(run: Run) -> None:
    container = await run("echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/stdin; ls /proc/self/fd | wc -l", user="web")
    written = {(line.stream, line.text) for line in container.lines()}
    assert written == {("stdout", b"out\n"), ("stderr", b"err\n"), ("stdout", b"4\n")}


async def test_yes_into_head_ends(run: Run) -> None:
    assert (await run("yes | head -1")).output() == "y\n"
