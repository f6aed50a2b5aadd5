"""Which devices a container may use: lines for cgroup v1's devices controller, an eBPF program for v2. Pure.

What no rule allows is denied.
"""

from __future__ import annotations

from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from moorage_agent.runtime.request import Rule

# Docker's list without /dev/console, which only exists with a terminal and then is a pts: any node may be made, these may be opened.
STANDARD: tuple[Rule, ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 136, None, "rwm"),  # pts
)


def v1_lines(rules: Iterable[Rule]) -> list[bytes]:
    """Lines for devices.allow, after `a` went to devices.deny."""
    return [f"{kind} {_number(major)}:{_number(minor)} {access}".encode() for kind, major, minor, access in rules]


def _number(number: int | None) -> str:
    return "*" if number is None else str(number)


# eBPF (Documentation/bpf/instruction-set.rst): an instruction is {u8 code, u8 source<<4|target, s16 jump, s32 constant}.
_LOAD32, _MOVE, _MOVE_CONSTANT, _AND, _RIGHT_SHIFT, _JUMP_UNEQUAL, _EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x55, 0x95
_TYPES, _ACCESS = {"b": 1, "c": 2}, {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_DEV_* and BPF_DEVCG_ACC_* of <linux/bpf.h>


def bpf_program(rules: Iterable[Rule]) -> bytes:
    """A BPF_PROG_TYPE_CGROUP_DEVICE program. r1 points at {u32 access << 16 | type, u32 major, u32 minor}; the answer is 1 or 0."""
    program = [
        _instruction(_LOAD32, 2, 1),
        _instruction(_MOVE, 3, 2),
        _instruction(_AND, 3, constant=0xFFFF),  # r3: type
        _instruction(_RIGHT_SHIFT, 2, constant=16),  # r2: access
        _instruction(_LOAD32, 4, 1, jump=4),  # r4: major
        _instruction(_LOAD32, 5, 1, jump=8),  # r5: minor
    ]
    for rule in rules:
        program += _rule(rule)
    return b"".join([*program, *_answer(0)])


def _rule(rule: Rule) -> list[bytes]:
    """Conditions that jump behind the rule when they fail, then "allowed"."""
    kind, major, minor, access = rule
    wanted = [(3, _TYPES[kind])]
    wanted += [] if major is None else [(4, major)]
    wanted += [] if minor is None else [(5, minor)]
    others = 7 & ~sum(_ACCESS[letter] for letter in set(access))
    length = len(wanted) + (3 if others else 0) + 2
    body = [_instruction(_JUMP_UNEQUAL, register, jump=length - at - 1, constant=value) for at, (register, value) in enumerate(wanted)]
    if others:
        body += [_instruction(_MOVE, 1, 2), _instruction(_AND, 1, constant=others), _instruction(_JUMP_UNEQUAL, 1, jump=2)]
    return body + _answer(1)


def _answer(value: int) -> list[bytes]:
    return [_instruction(_MOVE_CONSTANT, 0, constant=value), _instruction(_EXIT)]


def _instruction(code: int, target: int = 0, source: int = 0, *, jump: int = 0, constant: int = 0) -> bytes:
    return pack("=BBhi", code, source << 4 | target, jump, constant)
