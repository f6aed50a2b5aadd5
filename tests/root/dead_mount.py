"""A file system whose server is gone: whoever asks for a path of it waits in the kernel until it is given up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from moorage_agent.runtime import linux


class DeadMount:
    """FUSE whose server never answers; it is another process, so that a test which hangs is let go after a while."""

    def __init__(self, folder: Path) -> None:
        if not os.path.exists("/dev/fuse"):
            pytest.skip("the kernel has no FUSE")
        self.folder = folder
        folder.mkdir()
        channel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        linux.mount("dead", str(folder), "fuse", 0, f"fd={channel},rootmode=40000,user_id=0,group_id=0")
        self._server = subprocess.Popen(["sleep", "90"], pass_fds=[channel])
        os.close(channel)

    def give_up(self) -> None:
        """Whoever waits is told that nobody is there."""
        self._server.kill()
        self._server.wait()

    def unmount(self) -> None:
        """What was there before it is seen again."""
        self.give_up()
        if os.path.ismount(self.folder) or not self._answers():
            linux.umount2(str(self.folder), linux.MNT_DETACH)

    def _answers(self) -> bool:
        try:
            os.stat(self.folder)
        except OSError:
            return False
        return True
