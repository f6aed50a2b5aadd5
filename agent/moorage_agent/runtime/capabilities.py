"""Capabilities by name, as masks (bit n for capability n of <linux/capability.h>). Pure.

The default is podman's eleven: Docker's fourteen without MKNOD, NET_RAW and AUDIT_WRITE. Ping and ports below 1024 need none of them here,
because both are opened to everybody inside an isolated network.
"""

from __future__ import annotations

from collections.abc import Iterable

from moorage_agent.errors import InvalidTask

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN "
    "NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
).split()
DEFAULT = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()


def mask(add: Iterable[str] = (), drop: Iterable[str] = (), *, privileged: bool = False) -> int:
    """The capabilities of a container. ALL is everything; what is both added and dropped is dropped, unless it is dropped by ALL."""
    added, dropped = _bits(add), _bits(drop)
    if privileged:
        return _bits(["ALL"]) & ~dropped
    if dropped == _bits(["ALL"]):
        return added if added != dropped else 0
    return (_bits(DEFAULT) | added) & ~dropped


def has(mask: int, name: str) -> bool:
    return bool(mask >> NAMES.index(name) & 1)


def names(mask: int) -> list[str]:
    return [name for number, name in enumerate(NAMES) if mask >> number & 1]


def _bits(names: Iterable[str]) -> int:
    found = 0
    for name in names:
        found |= (1 << len(NAMES)) - 1 if name.upper() in ("ALL", "CAP_ALL") else 1 << _number(name)
    return found


def _number(name: str) -> int:
    try:
        return NAMES.index(name.upper().removeprefix("CAP_"))
    except ValueError:
        raise InvalidTask(
            "UnknownCapability", f"there is no capability {name!r}; names are those of capabilities(7), such as NET_ADMIN"
        ) from None
