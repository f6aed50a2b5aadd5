"""The AppArmor profile of containers: what it says, and whether this host enforces it. The daemon's side; init only names the label.

The kernel takes compiled policy alone; the compiler is the host's apparmor_parser, which every distribution that turns AppArmor on brings
along. The rules follow Docker's docker-default (moby/profiles, apparmor/template.go): a second wall behind masks, mounts and seccomp.
"""

from __future__ import annotations

import os
import shutil
import subprocess

PROFILE = "moorage-default"
LOADED = "/sys/kernel/security/apparmor/profiles"

TEXT = f"""
profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  network,
  deny network alg,
  capability,
  file,
  umount,
  unix,

  signal (receive) peer=unconfined,
  signal (send,receive) peer={PROFILE},
  ptrace (trace,read,tracedby,readby) peer={PROFILE},

  # Of /proc a container may write what belongs to its processes, and sysctls of its namespaces.
  deny /proc/* w,
  deny /proc/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}}/** w,
  deny /proc/sys/[^kn]** w,
  deny /proc/sys/kernel/{{?,??,[^sm][^he][^ms]**}} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  deny mount,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"""


def runs() -> bool:
    """This kernel enforces AppArmor."""
    return os.path.exists(LOADED)


def loaded() -> bool:
    """The profile is in the kernel, enforced, as the text of LOADED says it."""
    try:
        with open(LOADED, encoding="ascii", errors="replace") as file:
            return any(line.split() == [PROFILE, "(enforce)"] for line in file)
    except OSError:
        return False


def load() -> str | None:
    """Put the profile of this version into the kernel. None when it is there now, else why it is not."""
    if not runs():
        return "this kernel does not enforce AppArmor"
    parser = shutil.which("apparmor_parser", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if parser is None:
        return None if loaded() else "apparmor_parser is not installed: install the package apparmor"
    done = subprocess.run([parser, "-K", "-r"], input=TEXT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        return f"apparmor_parser refused the profile: {done.stderr.strip()[-500:]}"
    return None if loaded() else "apparmor_parser was content, but the kernel does not list the profile"
