"""Named volumes: directories below paths.volumes, made when first needed, never deleted with a task. And the check of bind sources."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence

from moorage_agent.errors import InvalidTask
from moorage_agent.paths import Paths
from moorage_agent.seed import seed

_making = threading.Lock()  # two tasks may want the same new volume


def make_volume(paths: Paths, key: str, *, layers: Sequence[str] = (), target: str = "/") -> str:
    """The directory of a volume. A new one begins with what the image (`layers`) has at `target`; it appears whole or not at all.

    Raises InvalidTask for a key that is none, and what `seed` raises.
    """
    path = paths.volume(key)
    with _making:
        if os.path.lexists(path):
            if not os.path.isdir(path):
                raise InvalidTask("InvalidVolume", f"{path} is not a directory; remove it or name the volume {key} otherwise")
            return path
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        draft = f"{os.path.dirname(path)}/.{os.path.basename(path)}"
        shutil.rmtree(draft, ignore_errors=True)
        os.mkdir(draft)
        os.chmod(draft, 0o755)  # noqa: S103 -- whoever the container runs as must get in; on the host 0700 parents keep others out
        try:
            if layers:
                seed(draft, layers, target)
            os.rename(draft, path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)  # it may be what filled the disk
            raise
    return path


def volume_keys(paths: Paths) -> tuple[str, ...]:
    """The keys of all named volumes of this host."""
    keys = []
    for namespace in _names(paths.volumes):
        for stack in _names(f"{paths.volumes}/{namespace}"):
            keys += [f"{namespace}/{stack}/{name.replace('@', '/')}" for name in _names(f"{paths.volumes}/{namespace}/{stack}")]
    return tuple(sorted(keys))


def check_bind(source: str, *, target: str) -> None:
    """Raises InvalidTask when a bind mount's source is no absolute path, or does not exist on this host; OSError when nobody can tell.

    Takes as long as the file system does.
    """
    if not source.startswith("/") or "\0" in source or ".." in source.split("/"):
        raise InvalidTask("InvalidMount", f"bind source {source!r} of {target} must be an absolute path without '..'")
    try:
        os.lstat(source)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"bind source {source} of {target} does not exist on this host; create it, or use a volume"
        raise InvalidTask("BindSourceMissing", what) from error


def check_binds(sources: Mapping[str, str]) -> None:
    """check_bind for each; `sources` by target."""
    for target, source in sources.items():
        check_bind(source, target=target)


def _names(directory: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
