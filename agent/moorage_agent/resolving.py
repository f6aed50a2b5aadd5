"""What an image source means right now, asked by a child process: TLS and hostile answers stay out of the daemon and its memory."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Mapping
from typing import Any

from moorage_agent.errors import ImageError
from moorage_agent.paths import Paths
from moorage_agent.protocol import ImageSource, ResolvedImage, from_wire, to_wire
from moorage_agent.version import home

WITHIN_S = 600.0


async def resolve_in_child(source: ImageSource, values: Mapping[str, bytes], paths: Paths) -> ResolvedImage:
    """Raises ImageError with the child's code and message."""
    arguments = ("-I", "-S", "-E", home(), "resolve", "--root", paths.root, "--run", paths.run)
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    question = {"source": to_wire(source), "values": {key: base64.b64encode(data).decode() for key, data in values.items()}}
    try:
        said, _ = await asyncio.wait_for(child.communicate(json.dumps(question).encode()), WITHIN_S)
    finally:
        if child.returncode is None:
            child.kill()
    return _answer(said, child.returncode)


def resolve_for_parent(paths: Paths) -> int:
    """The child's side: a question on stdin, an answer on stdout."""
    from moorage_agent.images.pull import resolve
    from moorage_agent.images.store import ImageStore

    question = json.loads(sys.stdin.buffer.read())
    values = {key: base64.b64decode(text) for key, text in question["values"].items()}
    try:
        found = resolve(from_wire(ImageSource, question["source"]), values.__getitem__, ImageStore(paths))
        answer: dict[str, Any] = {"image": to_wire(found)}
    except ImageError as error:
        answer = {"error": {"code": error.code, "message": error.message, "retryAfter": error.retry_after_s}}
    sys.stdout.write(json.dumps(answer))
    return 0


def _answer(said: bytes, returncode: int | None) -> ResolvedImage:
    try:
        answer = json.loads(said)
    except ValueError:
        raise ImageError("ResolveCrashed", f"the process that asked ended with {returncode} and no answer; see the agent's log") from None
    if "error" in answer:
        error = answer["error"]
        raise ImageError(error["code"], error["message"], error["retryAfter"])
    return from_wire(ResolvedImage, answer["image"])
