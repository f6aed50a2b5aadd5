"""The shapes of what the daemon sends to the zygote and what a shim leaves for others to read. Types only: the zygote never imports this.

Values are what marshal carries. Text is bytes, as the kernel takes it. Descriptors travel beside the request and are named by their place.
"""

from __future__ import annotations

from typing import Optional, TypedDict

# (type "c" or "b", major, minor, access): None is any number, access is of "rwm": read, write, mknod
Rule = tuple[str, Optional[int], Optional[int], str]


class Confinement(TypedDict):
    """What a process of the container may do, whether it is the first or came by exec. Masks have bit n for capability n."""

    user: bytes
    groups: list[bytes]
    capabilities: int
    no_new_privs: bool
    seccomp: bytes
    app_armor: bytes
    rlimits: list[tuple[int, int, int]]
    oom_score_adj: int
    cwd: bytes
    env: list[bytes]


class StartRequest(TypedDict):
    """limits: (controller, file, value, may be missing). mounts: ("bind", target, descriptor, ro, directory) or ("tmpfs", target, size or
    None, mode, ro).

    device_rules None: the standard ones, inherited. devices: nodes to make, (path, type, major, minor, mode). files: (directory, name,
    text).
    """

    uid: str
    run: int
    layers: list[bytes]
    argv: list[bytes]
    hostname: bytes
    tty: bool
    init: bool
    read_only: bool
    privileged: bool
    isolated_network: bool
    private_pid: bool
    private_ipc: bool
    mounts: list[tuple[object, ...]]
    files: list[tuple[bytes, bytes, bytes]]
    devices: list[tuple[bytes, str, int, int, int]]
    device_rules: list[Rule] | None
    limits: list[tuple[str, str, bytes, bool]]
    sysctls: list[tuple[bytes, bytes]]
    shm_size: int
    masked: list[bytes]
    read_only_paths: list[bytes]
    nodev: bool
    log_size: int
    log_files: int
    confinement: Confinement


class ExecRequest(TypedDict):
    uid: str
    argv: list[bytes]
    timeout_s: float


class State(TypedDict):
    """One run of this boot, without its environment and command: those may be secret and stay in the memory of its
    shim (`confinement` has none).

    `request` is the number of the descriptor in the shim that holds the StartRequest; `cgroups` are
    its directories, version 2 last: a later zygote may work below another top. `memory`: the one that counts OOM kills, and its version.
    """

    run: int
    pid: int
    starttime: int
    boot_id: str
    started_ns: int
    shim: int
    request: int
    cgroups: list[str]
    memory: tuple[str, int]
    tty: bool
    private_pid: bool
    private_ipc: bool
    isolated_network: bool
    confinement: Confinement
    log_size: int
    log_files: int
