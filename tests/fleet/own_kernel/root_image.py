"""The disk a host with its own kernel starts from, made once: a small Debian with systemd and sshd.

Each host writes to a layer of its own over it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.machine import cache_dir, once
from tests.machine.debian_root import LEFT_OUT, SUITE, make_debian_root, remove_root

PACKAGES = ("systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "iproute2", "nftables", "ca-certificates", "kmod", "procps")
SETUP = Path(__file__).with_name("bench-setup")
UNIT = Path(__file__).with_name("bench-setup.service")
SSHD = "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\n"
SIZE_MB = 2048


def root_image() -> Path:
    """An ext4 file system in a sparse file. Never written to: a layer over it records its modification time."""
    inputs = repr((SUITE, PACKAGES, LEFT_OUT, SSHD, SIZE_MB)).encode() + SETUP.read_bytes() + UNIT.read_bytes()
    return once(cache_dir() / "root-image" / hashlib.sha256(inputs).hexdigest()[:16], make) / "base.ext4"


def make(target: Path) -> None:
    print("making a Debian root file system, once: about half a minute", file=sys.stderr, flush=True)
    root = target / "root"
    make_debian_root(root, *PACKAGES)
    furnish(root)
    image = target / "base.ext4"
    with open(image, "wb") as file:
        file.truncate(SIZE_MB << 20)
    options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-J", "size=32"]
    subprocess.run(["mkfs.ext4", *options, "-d", root, image], check=True, capture_output=True)
    remove_root(root)


def furnish(root: Path) -> None:
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/ssh/sshd_config.d/bench.conf").write_text(SSHD)
    (root / "etc/machine-id").write_text("")  # each host makes its own at its first boot
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/fstab").write_text("/dev/root / ext4 defaults,noatime 0 0\n")
    (root / "usr/local/sbin/bench-setup").write_bytes(SETUP.read_bytes())
    (root / "usr/local/sbin/bench-setup").chmod(0o755)
    units = root / "etc/systemd/system"
    (units / UNIT.name).write_bytes(UNIT.read_bytes())
    (units / "sysinit.target.wants").mkdir(exist_ok=True)
    (units / "sysinit.target.wants" / UNIT.name).symlink_to(f"../{UNIT.name}")
