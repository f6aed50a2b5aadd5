"""What SSH runs on a host: finds the agent there, or unpacks it, and becomes its `dial`.

The command is one constant line for /bin/sh; the program that follows on stdin is PROGRAM: no user data meets a shell. It must parse on
any Python from 2.7 on, to be able to say which one is missing. It greets with one line of JSON:
  {"agent": sha}                      and then is the agent's dial, speaking frames
  {"want": sha}                       and then reads that many bytes of archive before it does
  {"error": reason, "message": text}  and ends
"""

from __future__ import annotations

import json
import shlex
from typing import Final

from moorage_operator.fleet.target import Become

MIN_PYTHON: Final = (3, 9)

PROGRAM: Final = r"""
import hashlib, json, os, sys


def say(**greeting):
    os.write(1, (json.dumps(greeting) + "\n").encode())


def fail(reason, message):
    say(error=reason, message=message)
    sys.exit(1)


def check():
    found = "Python %d.%d at %s" % (sys.version_info[0], sys.version_info[1], sys.executable)
    if sys.version_info[:2] < (3, 9):
        fail("PythonTooOld", "the host has %s; the agent needs 3.9 or newer as python3" % found)
    try:
        import ctypes, asyncio, zipfile
    except ImportError as error:
        fail("PythonIncomplete", "%s lacks %s; install the distribution's full python3 package" % (found, error.name))
    if os.geteuid() != 0:
        fail("NotRoot", "the account is uid %d; log in as root, or let it use sudo or doas without a password" % os.geteuid())


def unpack(root, sha, size):
    import io, shutil, zipfile
    say(want=sha)
    data = sys.stdin.buffer.read(size)
    if hashlib.sha256(data).hexdigest() != sha:
        fail("ArchiveDamaged", "the agent's archive arrived with another sha256")
    temporary = "%s/.%s.%d" % (root, sha, os.getpid())
    try:
        os.makedirs(temporary, 0o700)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(temporary)
        if os.path.exists(temporary + "/moorage-agent"):
            os.chmod(temporary + "/moorage-agent", 0o700)
        os.sync()
        os.rename(temporary, "%s/%s" % (root, sha))
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not os.path.isdir("%s/%s" % (root, sha)):
            raise


def sweep(root):
    import shutil
    for name in os.listdir(root):
        pid = name.rpartition(".")[2]
        if name.startswith(".") and pid.isdigit() and not os.path.exists("/proc/" + pid):
            shutil.rmtree(root + "/" + name, ignore_errors=True)


def prune(root, keep):
    import shutil
    versions = sorted((name for name in os.listdir(root) if len(name) == 64), key=lambda name: os.stat(root + "/" + name).st_mtime)
    for name in versions[:-3]:
        if name not in keep:
            shutil.rmtree(root + "/" + name, ignore_errors=True)


def main():
    check()
    wish = json.loads(sys.argv[2])
    root = wish["root"] + "/agent"
    os.umask(0o077)
    sha = wish["sha256"]
    try:
        current = os.readlink(root + "/current")
    except OSError:
        current = None
    if current and current != sha and not wish["upgrade"] and os.path.isdir(root + "/" + current):
        sha = current
    try:
        if not os.path.isdir(root + "/" + sha):
            os.makedirs(root, 0o700, exist_ok=True)
            sweep(root)
            unpack(root, sha, wish["size"])
        prune(root, (sha, current))
    except OSError as error:
        fail("CannotInstall", "cannot unpack the agent to %s: %s" % (root, error))
    say(agent=sha)
    os.chdir("/")
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-E", root + "/" + sha, "dial"])


main()
"""

# One line, and no quote of its own: it passes through the login shell of any account.
_LOADER: Final = "import sys;exec(sys.stdin.buffer.read(int(sys.argv[1])))"

_PYTHON: Final = f"python3 -I -S -E -c {shlex.quote(_LOADER)}"
_AS_ROOT: Final = {
    "None": "exec",
    "Sudo": "exec sudo -n",
    "Doas": "exec doas -n",
    "Auto": "if [ $(id -u) -eq 0 ]; then r=; elif command -v sudo >/dev/null; then r='sudo -n'; else r='doas -n'; fi; exec $r",
}


def command(become: Become, sha256: str, size: int, *, upgrade: bool, root: str) -> str:
    """The line that sshd gives to the account's login shell. `upgrade`: run this version even where another is installed and working."""
    wish = json.dumps({"sha256": sha256, "size": size, "upgrade": upgrade, "root": root}, separators=(",", ":"))
    script = f"{_AS_ROOT[become]} {_PYTHON} {len(PROGRAM)} {shlex.quote(wish)}"
    return f"exec /bin/sh -c {shlex.quote(script)}"
