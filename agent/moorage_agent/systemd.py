"""The daemon as a unit of systemd. The unit owns no container (they live in a scope of the runtime's), so a restart of it is harmless."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

from moorage_agent.errors import AgentError

UNIT = "moorage-agent.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
SLICE = "moorage.slice"


def unit_text(python: str, home: str, *, log: str) -> str:
    """The unit of the agent unpacked at `home`. It may be killed at any moment, so it is not waited for, but while it stops containers."""
    return f"""[Unit]
Description=Moorage agent: runs the containers of this node
After=network-online.target local-fs.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -I -S -E {home} serve
Restart=on-failure
RestartSec=1
TimeoutStopSec=20
StandardOutput=append:{log}
StandardError=inherit
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"""


def start(home: str, *, log: str) -> None:
    """Write, enable and start the unit; the call returns when the daemon listens. Raises AgentError with systemd's words."""
    wanted = unit_text(sys.executable, home, log=log)
    if _read(UNIT_FILE) != wanted:
        os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
        with open(UNIT_FILE + ".new", "w", encoding="utf-8") as file:
            file.write(wanted)
        os.chmod(UNIT_FILE + ".new", 0o644)  # systemd warns of one that not everybody may read
        os.replace(UNIT_FILE + ".new", UNIT_FILE)
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT)
    _systemctl("restart", UNIT)


def remove() -> None:
    """Forget the unit without stopping it: the caller may be its process."""
    if os.path.exists(UNIT_FILE):
        _systemctl("disable", UNIT)
        os.unlink(UNIT_FILE)
        _systemctl("daemon-reload")
    with contextlib.suppress(AgentError):  # made by systemd for the first scope in it, and never taken away by itself
        _systemctl("stop", SLICE)


def host_stops() -> bool:
    """True from the moment systemd began to end everything: reboot, poweroff, halt."""
    done = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip() == "stopping"


def notify(state: str) -> None:
    """Tell systemd, if it started us: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
            to_systemd.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def _systemctl(*args: str) -> None:
    done = subprocess.run(["systemctl", "--quiet", *args], capture_output=True, text=True, timeout=90, check=False)
    if done.returncode != 0:
        raise AgentError("SystemdRefused", f"systemctl {' '.join(args)} ended with {done.returncode}: {done.stderr.strip()}")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
