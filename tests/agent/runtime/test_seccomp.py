"""The compiled filter, run by an interpreter of classic BPF, beside the profile read the slow way."""

from __future__ import annotations

import struct

import pytest
from moorage_agent.runtime import capabilities, seccomp, seccomp_profile, syscall_table
from moorage_agent.runtime.seccomp import ALLOW, AUDIT_ARCH, ENOSYS, EPERM, KILL_PROCESS

MACHINES = ("x86_64", "aarch64")
MASKS = {"default": capabilities.mask(), "all": capabilities.mask(["ALL"]), "none": 0, "admin": capabilities.mask(["SYS_ADMIN"])}
ARGUMENTS = (0, 1, 8, 11, 12, 13, 38, 39, 40, 41, 45, 46, 0x20000, 0x10000000, 0x7E020000, 0xFFFFFFFF, 1 << 32, 38 | 1 << 32, 40 | 1 << 63)


def verdict(program: bytes, number: int, argument: int = 0, arch: int = AUDIT_ARCH["x86_64"]) -> tuple[int, int]:
    """(what the kernel would do, instructions it ran)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, argument, 0, 0, 0, 0, 0)
    accumulator = at = steps = 0
    while True:
        code, if_true, if_false, constant = struct.unpack_from("=HBBI", program, at * 8)
        at, steps = at + 1, steps + 1
        if code == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif code == seccomp.AND:
            accumulator &= constant
        elif code == seccomp.RETURN:
            return constant, steps
        elif code == seccomp.JUMP:
            at += constant
        else:
            taken = accumulator == constant if code == seccomp.JUMP_EQUAL else accumulator >= constant
            at += if_true if taken else if_false


def expected(name: str, argument: int, mask: int, machine: str) -> int:
    """The profile in words: low halves count, capabilities add."""
    low = argument & 0xFFFFFFFF
    added = [more for capability, more in seccomp_profile.WITH_CAPABILITY.items() if capabilities.has(mask, capability)]
    allowed = {*seccomp_profile.ALWAYS, *seccomp_profile.ON_MACHINE[machine].split(), *" ".join(added).split()}
    if name in allowed:
        return ALLOW
    if name == "socket":
        return ALLOW if low < 12 or low in seccomp_profile.FAMILIES else EPERM
    if name == "personality":
        return ALLOW if low in seccomp_profile.PERSONALITIES else EPERM
    if name == "clone":
        return EPERM if low & seccomp_profile.NEW_NAMESPACES else ALLOW
    return ENOSYS if name == "clone3" else EPERM


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_filter_says_what_the_profile_says_for_every_call(mask: int, machine: str) -> None:
    program = seccomp.default_filter(mask, machine)
    for name, number in syscall_table.numbers(machine).items():
        for argument in ARGUMENTS:
            assert verdict(program, number, argument, AUDIT_ARCH[machine])[0] == expected(name, argument, mask, machine), (name, argument)


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_nobody_knows_are_enosys(machine: str) -> None:
    program = seccomp.default_filter(MASKS["default"], machine)
    known = set(syscall_table.numbers(machine).values())
    for number in [*(number for number in range(700) if number not in known), 1 << 20, 0x40000000 + 41, 0x7FFFFFFF, -1]:
        assert verdict(program, number, 0, AUDIT_ARCH[machine])[0] == ENOSYS


@pytest.mark.parametrize("arch", [0x40000003, 0x40000028, 0xC00000B7, 0])
def test_other_architectures_are_killed(arch: int) -> None:
    assert verdict(seccomp.default_filter(MASKS["default"], "x86_64"), 0, 0, arch)[0] == KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
def test_filter_is_small_and_shallow(machine: str) -> None:
    program = seccomp.default_filter(MASKS["default"], machine)
    paths = [verdict(program, number, 0, AUDIT_ARCH[machine])[1] for number in range(600)]
    assert len(program) // 8 < 400
    assert max(paths) < 50
    assert sorted(paths)[len(paths) // 2] <= 20


def test_names_of_the_profile_are_system_calls_somewhere() -> None:
    known = {name for machine in MACHINES for name in syscall_table.numbers(machine)}
    named = {*seccomp_profile.ALWAYS, *" ".join(seccomp_profile.WITH_CAPABILITY.values()).split()}
    assert named - known == set()


def test_what_must_never_be_allowed_by_default() -> None:
    program = seccomp.default_filter(MASKS["default"], "x86_64")
    for name in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "keyctl",
        "add_key",
        "request_key",
        "userfaultfd",
        "unshare",
        "setns",
        "mount",
        "umount2",
        "bpf",
        "perf_event_open",
        "kexec_load",
        "kexec_file_load",
        "open_by_handle_at",
        "init_module",
        "finit_module",
        "swapon",
        "pivot_root",
        "move_mount",
        "fsopen",
        "reboot",
        "ptrace_",
    ]:
        number = syscall_table.numbers("x86_64").get(name)
        assert number is None or verdict(program, number)[0] == EPERM, name
