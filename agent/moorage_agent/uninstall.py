"""Removing Moorage from a host: everything it made but the volumes, which hold the users' data."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil

from moorage_agent import systemd
from moorage_agent.errors import AgentError
from moorage_agent.paths import Paths
from moorage_agent.runtime import linux
from moorage_agent.world import World

GONE_WITHIN_S = 300.0


async def tasks_gone(world: World) -> None:
    """Wait until no task is left. Raises AgentError naming those that stay."""
    for _ in range(int(GONE_WITHIN_S / 0.05)):
        if not world.tasks:
            return
        await asyncio.sleep(0.05)
    raise AgentError("TasksRemain", f"still stopping after {GONE_WITHIN_S:g} s: {', '.join(sorted(world.tasks))}; nothing was removed")


def remove_files(paths: Paths) -> None:
    """Remove what the agent keeps on disk and in memory. The code that runs is gone from disk afterwards, and needs it no more."""
    if paths.under_systemd:
        systemd.remove()
    with contextlib.suppress(OSError):
        linux.umount2(paths.secrets, linux.MNT_DETACH)
    for name in os.listdir(paths.root):
        if f"{paths.root}/{name}" != paths.volumes:
            shutil.rmtree(f"{paths.root}/{name}", ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rmdir(paths.volumes)
        os.rmdir(paths.root)
    shutil.rmtree(paths.run, ignore_errors=True)
