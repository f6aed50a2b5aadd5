"""The disk of a bare host: what it has over the machine's own root, made before the first boot and kept across boots."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from tests.fleet.spec import HostSpec
from tests.machine import MissingOnMachine
from tests.machine.debs import unpacked

# Folders of the host's own, empty at first. Of the machine it sees /usr and /etc only: nothing of the developer's.
OWN_FOLDERS = {
    "root": 0o700,
    "home": 0o755,
    "tmp": 0o1777,
    "opt": 0o755,
    "srv": 0o755,
    "mnt": 0o755,
    "media": 0o755,
    "boot": 0o755,
    "proc": 0o555,
    "sys": 0o555,
    "dev": 0o755,
    "run": 0o755,
    "usr": 0o755,
    "etc": 0o755,
    "var/lib/moorage": 0o755,
    "var/log": 0o755,
    "var/cache": 0o755,
    "var/tmp": 0o1777,
}
OF_SYSTEMD = ("/usr/bin/systemctl", "/usr/bin/systemd-run")
"""Bare hosts have no systemd, whatever this machine has."""

MERGED_USR = ("bin", "sbin", "lib", "lib64")
SSHD_DEFAULTS = {
    "HostKey": "/etc/ssh/ssh_host_ed25519_key",
    "PermitRootLogin": "prohibit-password",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "UsePAM": "yes",
    "X11Forwarding": "no",
    "PrintMotd": "no",
    "AcceptEnv": "LANG LC_*",
    "PidFile": "/run/sshd.pid",
    "Subsystem": "sftp /usr/lib/openssh/sftp-server",
}
REAL_FILE_SYSTEMS = {"ext2/ext3", "xfs", "btrfs"}


@dataclass(frozen=True)
class HostDisk:
    """Below `folder`: root (the host's file system), usr and etc (what it has there over the machine's own), boot_id, config.json."""

    folder: Path
    spec: HostSpec
    name: str
    group: str

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def usr(self) -> Path:
        return self.folder / "usr"

    @property
    def etc(self) -> Path:
        return self.folder / "etc"

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def boot_id(self) -> str:
        return (self.folder / "boot_id").read_text().strip()

    @property
    def machine_id(self) -> str:
        return (self.etc / "machine-id").read_text().strip()

    def new_boot(self) -> None:
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")


def make_disk(folder: Path, spec: HostSpec, *, name: str, group: str, authorized_key: str) -> HostDisk:
    """Raises MissingOnMachine when `folder` is not on a file system that overlays and containers can be put on."""
    disk = HostDisk(folder, spec, name, group)
    for path in (disk.root, disk.usr, disk.etc, folder / "work-usr", folder / "work-etc"):
        path.mkdir(parents=True)
    require_real_file_system(folder)
    make_folders(disk)
    write_identity(disk)
    write_accounts(disk, authorized_key)
    write_host_key(disk.etc)
    write_sshd_config(disk)
    hide(disk)
    write_config(disk)
    return disk


def require_real_file_system(folder: Path) -> None:
    kind = subprocess.run(["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True, check=True).stdout.strip()
    if kind not in REAL_FILE_SYSTEMS:
        raise MissingOnMachine(f"{folder} is on {kind}; bare hosts need ext4, xfs or btrfs: set MOORAGE_CACHE to a folder on one")


def make_folders(disk: HostDisk) -> None:
    for name, mode in OWN_FOLDERS.items():
        (disk.root / name).mkdir(parents=True)
        (disk.root / name).chmod(mode)
    (disk.root / "var/run").symlink_to("/run")
    for name in MERGED_USR:
        if not Path("/", name).is_symlink():
            raise MissingOnMachine(f"/{name} of this machine is not a link into /usr: bare hosts are not made for that")
        (disk.root / name).symlink_to(f"usr/{name}")
    for name in ("local/bin", "local/sbin", "local/lib"):
        (disk.usr / name).mkdir(parents=True)
    # An opaque folder of an overlay shows nothing of what lies below it.
    os.setxattr(disk.usr / "local", "trusted.overlay.opaque", b"y")


def write_identity(disk: HostDisk) -> None:
    etc = disk.etc
    (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    (etc / "hostname").write_text(f"{disk.name}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {disk.name}\n::1 localhost\n")
    (etc / "resolv.conf").write_text("")
    disk.new_boot()
    if disk.spec.python is not None:
        (disk.usr / "local/bin/python3").symlink_to(disk.spec.python.resolve())


def write_accounts(disk: HostDisk, authorized_key: str) -> None:
    accounts = Accounts(disk)
    accounts.add("sshd", uid=None, home="/run/sshd", shell="/usr/sbin/nologin")
    accounts.authorize(Path("root"), 0, authorized_key)
    user = disk.spec.user
    if user is not None:
        uid = accounts.add(user, uid=4242, home=f"/home/{user}", shell="/bin/sh")
        accounts.authorize(Path("home", user), uid, authorized_key)
        allow_becoming_root(disk.etc, user, disk.spec.become)


class Accounts:
    """The account files of the machine, copied up and added to. A `*` password lets nobody in by password, everybody by key."""

    def __init__(self, disk: HostDisk) -> None:
        self._disk = disk
        for name in ("passwd", "group", "shadow"):
            shutil.copy2(f"/etc/{name}", disk.etc / name)

    def add(self, name: str, *, uid: int | None, home: str, shell: str) -> int:
        """Does nothing when the machine knows the name already. Without `uid`, the first free one of the system's range."""
        known = {fields[0]: int(fields[2]) for fields in self._fields("passwd")}
        if name in known:
            return known[name]
        taken = {*known.values(), *(int(fields[2]) for fields in self._fields("group"))}
        number = uid if uid is not None else next(n for n in range(100, 999) if n not in taken)
        self._append("passwd", f"{name}:x:{number}:{number}::{home}:{shell}")
        self._append("group", f"{name}:x:{number}:")
        self._append("shadow", f"{name}:*:19000:0:99999:7:::")
        return number

    def authorize(self, home: Path, uid: int, key: str) -> None:
        folder = self._disk.root / home / ".ssh"
        folder.mkdir(parents=True)
        (folder / "authorized_keys").write_text(key)
        for path, mode in ((folder.parent, 0o700), (folder, 0o700), (folder / "authorized_keys", 0o600)):
            os.chown(path, uid, uid)
            path.chmod(mode)

    def _fields(self, name: str) -> list[list[str]]:
        return [line.split(":") for line in (self._disk.etc / name).read_text().splitlines() if line]

    def _append(self, name: str, line: str) -> None:
        with open(self._disk.etc / name, "a") as file:
            file.write(line + "\n")


def allow_becoming_root(etc: Path, user: str, become: str | None) -> None:
    if become == "sudo":
        (etc / "sudoers.d").mkdir()
        (etc / "sudoers.d/bench").write_text(f"{user} ALL=(ALL) NOPASSWD: ALL\n")
        (etc / "sudoers.d/bench").chmod(0o440)
    elif become == "doas":
        (etc / "doas.conf").write_text(f"permit nopass {user}\n")
        (etc / "doas.conf").chmod(0o400)


def write_host_key(etc: Path) -> str:
    """A new host key below `etc`; returns its public half as in known_hosts."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="")
    folder = etc / "ssh"
    folder.mkdir(exist_ok=True)
    private = folder / "ssh_host_ed25519_key"
    private.touch(mode=0o600)
    private.write_bytes(key.export_private_key())
    public = key.export_public_key().decode().strip()
    (folder / "ssh_host_ed25519_key.pub").write_text(public + "\n")
    return public


def write_sshd_config(disk: HostDisk) -> None:
    options = {**SSHD_DEFAULTS, **disk.spec.sshd}
    (disk.etc / "ssh/sshd_config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))


def hide(disk: HostDisk) -> None:
    """A character device 0/0 in an overlay's upper layer says that there is no such file. Paths below /usr and /etc."""
    for path in (*OF_SYSTEMD, *disk.spec.hidden):
        target = disk.folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(target, stat.S_IFCHR, 0)


def write_config(disk: HostDisk) -> None:
    """What init.py reads at each boot."""
    folder = disk.folder
    packages = {"sudo": ("openssh-server", "sudo"), "doas": ("openssh-server", "opendoas")}.get(disk.spec.become or "", ("openssh-server",))
    config: dict[str, Any] = {
        "name": disk.name,
        "group": disk.group,
        "folder": str(folder),
        "packages": str(unpacked(*packages)),
        "image": make_image(folder / "disk.ext4", disk.spec.disk_mb),
        "read_only": {**disk.spec.read_only, **interpreter_folder(disk.spec)},
    }
    for target in config["read_only"].values():
        (disk.root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
    disk.config.write_text(json.dumps(config))


def make_image(path: Path, size_mb: int | None) -> str | None:
    if size_mb is None:
        return None
    with open(path, "wb") as image:
        image.truncate(size_mb << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard", path], check=True, capture_output=True)
    return str(path)


def interpreter_folder(spec: HostSpec) -> dict[str, str]:
    """The installation an interpreter belongs to, shown where it was built for."""
    prefix = "/usr" if spec.python is None else str(spec.python.resolve().parent.parent)
    return {} if prefix == "/usr" else {prefix: prefix}  # each host has /usr
