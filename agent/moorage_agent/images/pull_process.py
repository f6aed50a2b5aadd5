"""Pulling in a process apart from the daemon's.

Why a process and not threads: unpacking is Python between system calls, and would hold the interpreter lock the daemon's event loop needs;
an image is hostile input, and what it makes of memory or of a bug in zlib ends here; and a process can be ended in any state. It is started
with nothing secret in its arguments or environment: the request, credentials among it, is one line on its standard input, which stays open
so that the process notices its daemon's death and ends too. Its locks end with it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, NoReturn

from moorage_agent.errors import AgentError, ImageError, Interrupted
from moorage_agent.images.cancellation import Cancellation
from moorage_agent.images.progress import Progress
from moorage_agent.images.store import Image, ImageStore
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageSource, ImageSpec, ResolvedImage, from_wire, to_wire
from moorage_agent.version import home

if TYPE_CHECKING:
    from moorage_agent.images.sources import Values  # loads TLS: the child needs it, the daemon does not

_START = "import sys; sys.path.insert(0, sys.argv[1]); from moorage_agent.images.pull_process import child; child()"
_NICENESS = 10
_OOM_SCORE = 800


def pull_apart(
    spec: ImageSpec, values: Values, store: ImageStore, progress: Progress, *, cancellation: Cancellation | None = None
) -> Image:
    """`pull` in a child process, which ends with this one. Also raises ImageError(PullCrashed) when the child died of something else."""
    image = store.get(spec.digest)
    if image is not None:
        return image
    request = {"spec": to_wire(spec), **_request(spec.source, values, store)}
    _run(request, progress, cancellation or Cancellation())
    image = store.get(spec.digest)
    if image is None:
        raise ImageError("StoreFailed", f"image {spec.digest} was removed from the store while it was pulled", 10)
    return image


def resolve_apart(source: ImageSource, values: Values, store: ImageStore, *, cancellation: Cancellation | None = None) -> ResolvedImage:
    """`resolve` in a child process, as `pull_apart`."""
    request = {"source": to_wire(source), **_request(source, values, store)}
    return from_wire(ResolvedImage, _run(request, lambda *_: None, cancellation or Cancellation()))


def _request(source: ImageSource, values: Values, store: ImageStore) -> dict[str, Any]:
    keys = [key for key in (source.credentials, source.ca_bundle, source.key) if key]
    return {
        "root": store.paths.root,
        "run": store.paths.run,
        "values": {key: base64.b64encode(values(key)).decode() for key in keys},
    }


def _run(request: dict[str, Any], progress: Progress, cancellation: Cancellation) -> Any:
    """The child's result. Raises what it raised."""
    command = [sys.executable, "-I", "-S", "-E", "-c", _START, home()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with cancellation.breaking(process.kill):
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    process.stdin.flush()
                for line in process.stdout:
                    told = json.loads(line)
                    if "progress" in told:
                        progress(*told["progress"])
                    else:
                        return _outcome(told)
            cancellation.check()
            complaint = process.stderr.read(4000).decode(errors="replace").strip()
        finally:
            process.kill()
    raise _crash(process.returncode, complaint)


def _outcome(told: dict[str, Any]) -> Any:
    if "error" not in told:
        return told["result"]
    error = told["error"]
    if error["interrupted"]:
        raise Interrupted(error["code"], error["message"])
    raise ImageError(error["code"], error["message"], error["retryAfterS"])


def _crash(code: int, complaint: str) -> ImageError:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    last = complaint.splitlines()[-1][:300] if complaint else "it said nothing"
    return ImageError("PullCrashed", f"the process that pulled the image {how}: {last}", 60)


# --- in the child


def child() -> NoReturn:
    """What the child runs: read a request from stdin, tell progress and the outcome as lines of JSON on stdout."""
    _be_modest()
    request = json.loads(_first_line())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        told: dict[str, Any] = {"result": _perform(request, _tell_progress)}
    except AgentError as error:
        told = {"error": _described(error)}
    _tell(told)
    os._exit(0)  # no thread is waited for: what was to be kept is on disk


def _perform(request: dict[str, Any], progress: Callable[[int, int], None]) -> Any:
    from moorage_agent.images.pull import pull, resolve

    store = ImageStore(Paths(request["root"], request["run"]))
    values = {key: base64.b64decode(value) for key, value in request["values"].items()}
    if "source" in request:
        return to_wire(resolve(from_wire(ImageSource, request["source"]), values.__getitem__, store))
    return pull(from_wire(ImageSpec, request["spec"]), values.__getitem__, store, progress).digest


def _be_modest() -> None:
    """Containers and the daemon come first: for the processor, and when memory runs out."""
    os.nice(_NICENESS)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(_OOM_SCORE))


def _first_line() -> bytes:
    data = b""
    while not data.endswith(b"\n") and (more := os.read(0, 1 << 16)):
        data += more
    return data


def _end_with_parent() -> None:
    """stdin ends when the daemon does, however it does."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _tell_progress(done: int, total: int) -> None:
    _tell({"progress": [done, total]})


def _tell(message: dict[str, Any]) -> None:
    """One write of less than PIPE_BUF is not torn by another thread's; a longer one is the last."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _described(error: AgentError) -> dict[str, Any]:
    return {
        "interrupted": isinstance(error, Interrupted),
        "code": error.code,
        "message": error.message,
        "retryAfterS": getattr(error, "retry_after_s", None),
    }
