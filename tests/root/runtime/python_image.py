"""This machine's Python inside a container, read-only: what makes system calls busybox cannot."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

from moorage_agent.runtime.launch import Bind

from tests.root.runtime.host import Host

CALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"
"""


def python_argv(code: str) -> tuple[str, ...]:
    """`code` may use call(number, arguments...), which answers "ok" or the errno's name."""
    return (os.path.realpath(sys.executable), "-I", "-S", "-c", CALL + textwrap.dedent(code))


def python_mounts() -> tuple[Bind, ...]:
    prefixes = {"/usr", os.path.realpath(sys.base_prefix)}
    return tuple(Bind(prefix, prefix, read_only=True) for prefix in sorted(prefixes) if not prefix.startswith("/usr/"))


def python_layer(host: Host) -> Path:
    links = {name: f"->{os.readlink(f'/{name}')}" for name in ("lib", "lib64") if os.path.islink(f"/{name}")}
    return host.image(**links)
