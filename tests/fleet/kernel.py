"""The system calls a bare host's first process makes. Standard library only: it starts with `python -I -S`, before any package exists."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWCGROUP = 0x02000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MNT_DETACH = 2
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    checked(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()), f"mount {kind or 'bind'}", target)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount(source, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def unmount(target: str) -> None:
    checked(_libc.umount2(target.encode(), MNT_DETACH), "umount", target)


def change_root(target: str) -> None:
    """pivot_root(2) onto itself, then let go of the old root, which lies below the new one at the same place."""
    os.chdir(target)
    checked(_libc.syscall(ctypes.c_long(SYS_PIVOT_ROOT), b".", b"."), "pivot_root", target)
    unmount(".")
    os.chdir("/")


def unshare(flags: int) -> None:
    checked(_libc.unshare(flags), "unshare", hex(flags))


def set_hostname(name: str) -> None:
    checked(_libc.sethostname(name.encode(), len(name)), "sethostname", name)


def checked(result: int, call: str, what: str) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{call}: {os.strerror(errno)}", what)
