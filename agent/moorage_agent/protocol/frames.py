"""How messages travel, and which there are.

A frame is two big-endian u32, the length of a JSON object and of a payload, then both. The object's "type" names the message.

operator → agent
  hello      protocol, swarmId, nodeUid, epoch, adopt (take over from another swarm, or from a Node of this one that is no more)
  document   spec: NodeSpec
  value      key + payload | key, error {code, message}
  resolve    id, source: ImageSource
  uninstall  id
  ping       at
agent → operator
  hello      protocol, agentVersion, facts, bound {swarmId, nodeUid, epoch, revision} (absent: bound to nobody yet)
  accepted   epoch, revision, hash of the document now in force
  refused    code (OwnedByAnotherSwarm, DuplicateHost, StaleEpoch, StaleRevision, Uninstalling), message, epoch
  need       keys of values the agent lacks
  report     report: NodeReport
  resolved   id, image: ResolvedImage | id, error {code, message, retryAfterS: when another try may help}
  done       id | id, error {code, message}
  pong       at
  error      code, message: a frame of unknown type, malformed, or a document while the agent is uninstalled

on the host itself, instead of a hello
  retire     the daemon ends, for one of another version; refused while it uninstalls
  observe    answered by a full report
  uninstall  answered by done

The agent speaks first (hello); the operator answers with its own; then the agent sends a full report. Both send a frame every 5 s.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from moorage_agent.protocol.wire import ProtocolError

MAX_BODY = 32 * 1024 * 1024
MAX_AGENT_BODY = 8 * 1024 * 1024  # what agents say; the full report of a host with a thousand tasks and as many images has two
MAX_PAYLOAD = 4 * 1024 * 1024

_LENGTHS = struct.Struct(">II")


def encode(message: dict[str, Any], payload: bytes = b"", *, max_body: int = MAX_BODY) -> bytes:
    """As `frame`. What is no character (half a surrogate pair, which JSON of a third party may hold) becomes a question mark."""
    return frame(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"), payload, max_body=max_body)


def frame(body: bytes, payload: bytes = b"", *, max_body: int = MAX_BODY) -> bytes:
    """`body` is a JSON object in UTF-8. Raises ProtocolError when either is larger than the protocol allows."""
    if len(body) > max_body or len(payload) > MAX_PAYLOAD:
        raise ProtocolError(f"a frame of {len(body)}+{len(payload)} bytes is larger than the protocol allows")
    return _LENGTHS.pack(len(body), len(payload)) + body + payload


class Decoder:
    """Turns received bytes into frames; keeps what is incomplete until more arrives. `max_body`: for a peer that is not to be trusted."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._buffer = bytearray()
        self._max_body = max_body

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= _LENGTHS.size:
            body_length, payload_length = _LENGTHS.unpack_from(self._buffer)
            if body_length > self._max_body or payload_length > MAX_PAYLOAD:
                raise ProtocolError(f"the peer announced a frame of {body_length}+{payload_length} bytes; is it a Moorage peer?")
            end = _LENGTHS.size + body_length + payload_length
            if len(self._buffer) < end:
                break
            frames.append((self._message(body_length), bytes(self._buffer[_LENGTHS.size + body_length : end])))
            del self._buffer[:end]
        return frames

    def _message(self, length: int) -> dict[str, Any]:
        try:
            message = json.loads(self._buffer[_LENGTHS.size : _LENGTHS.size + length])
        except ValueError as error:
            raise ProtocolError(f"the peer sent a frame that is not JSON: {error}") from error
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ProtocolError("the peer sent a frame without a type")
        return message
