"""The words operator and agent share: what a node should run, what it runs, and how both travel.

The operator imports this module and nothing else of the agent. Values are frozen dataclasses; on the wire they are camelCase JSON objects
without their absent fields. A peer of another version may send fields unknown here: they are ignored. Seconds are floats, memory is bytes,
cpu is thousandths of a core. Nothing secret is ever a field of a document: values travel as payloads of `value` frames, by key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Optional, TypeVar

PROTOCOL = 1
RELEASE = "0.1.0"
"""The release this agent belongs to. Builds of one release differ in their archive's sha256 alone."""

MAX_BODY = 32 * 1024 * 1024
MAX_PAYLOAD = 4 * 1024 * 1024

# --- what a node should run


@dataclass(frozen=True)
class EnvVar:
    """One variable: `value` in clear, or `key` of a value that travels apart."""

    name: str
    value: Optional[str] = None
    key: Optional[str] = None


@dataclass(frozen=True)
class Healthcheck:
    """Exactly one of exec, http_port, tcp_port; none of them: `disabled` overrides the image's own check."""

    exec: Optional[tuple[str, ...]] = None
    http_port: Optional[int] = None
    http_path: str = "/"
    tcp_port: Optional[int] = None
    disabled: bool = False
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0
    start_interval_s: float = 5.0


@dataclass(frozen=True)
class Mount:
    """`kind` volume: source is the volume's key on the host (namespace/stack/name[/slot]); bind: a host path; tmpfs: size in bytes."""

    target: str
    kind: str
    source: Optional[str] = None
    read_only: bool = False
    size: Optional[int] = None


@dataclass(frozen=True)
class DataFile:
    """A file made of a value. `secret` files live in memory only; others in content-addressed files on disk."""

    target: str
    key: str
    secret: bool
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


@dataclass(frozen=True)
class Resources:
    cpu_limit: Optional[int] = None
    cpu_reservation: Optional[int] = None
    memory_limit: Optional[int] = None
    memory_reservation: Optional[int] = None
    swap_limit: Optional[int] = None
    pids_limit: Optional[int] = None


@dataclass(frozen=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Sysctl:
    name: str
    value: str


@dataclass(frozen=True)
class Device:
    path: str
    target: Optional[str] = None
    permissions: str = "rwm"


@dataclass(frozen=True)
class Security:
    """seccomp and app_armor: "RuntimeDefault" or "Unconfined". pid and ipc: "Private" or "Host"."""

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privs: bool = True
    seccomp: str = "RuntimeDefault"
    app_armor: str = "RuntimeDefault"
    user_namespace: bool = False
    devices: tuple[Device, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: Optional[int] = None
    oom_score_adj: Optional[int] = None
    pid: str = "Private"
    ipc: str = "Private"


@dataclass(frozen=True)
class LogLimits:
    max_size: int = 10 * 1024 * 1024
    max_files: int = 3


@dataclass(frozen=True)
class Restart:
    """condition: Any, OnFailure or None. max_attempts counts inside window_s; attempts_used were spent by earlier Tasks of the slot."""

    condition: str = "Any"
    delay_s: float = 1.0
    max_delay_s: float = 300.0
    max_attempts: Optional[int] = None
    window_s: Optional[float] = None
    attempts_used: int = 0


@dataclass(frozen=True)
class Port:
    """A port the container listens on, on the host's addresses. `protocol` is TCP or UDP."""

    port: int
    protocol: str = "TCP"
    host_ip: Optional[str] = None


@dataclass(frozen=True)
class Container:
    """What to run. Text fields may hold the templates {{.Node.Hostname}}, {{.Task.Slot}}, {{.Service.Name}}: the agent expands them."""

    command: Optional[tuple[str, ...]] = None
    args: Optional[tuple[str, ...]] = None
    env: tuple[EnvVar, ...] = ()
    working_dir: Optional[str] = None
    user: Optional[str] = None
    groups: tuple[str, ...] = ()
    hostname: Optional[str] = None
    tty: bool = False
    stdin: bool = False
    init: bool = False
    read_only: bool = False
    stop_signal: Optional[str] = None
    stop_grace_s: float = 10.0
    healthcheck: Optional[Healthcheck] = None
    mounts: tuple[Mount, ...] = ()
    files: tuple[DataFile, ...] = ()
    resources: Resources = Resources()
    security: Security = Security()
    logs: LogLimits = LogLimits()
    restart: Restart = Restart()
    network: str = "Isolated"
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class ImageSource:
    """Where an image comes from. kind: Registry (reference), ArchiveUrl (url, sha256), ArchivePath (host path) or ArchiveData (key).

    `credentials` and `ca_bundle` are keys of values: {"username", "password"} or {"identitytoken"} as JSON, and PEM text.
    """

    kind: str
    reference: Optional[str] = None
    url: Optional[str] = None
    sha256: Optional[str] = None
    path: Optional[str] = None
    key: Optional[str] = None
    credentials: Optional[str] = None
    ca_bundle: Optional[str] = None
    insecure: bool = False
    platform: Optional[str] = None


@dataclass(frozen=True)
class ImageSpec:
    """An image a node needs: `digest` is what the operator pinned (of the platform's manifest; of the content, for an archive)."""

    digest: str
    source: ImageSource


@dataclass(frozen=True)
class TaskSpec:
    """One container of one slot. desired_state: Ready (prepare only) or Running. A task absent from the document is stopped and removed.

    `replaces` names the task of the same slot that makes way: with StopFirst the agent stops it before it starts this one.
    `stop_after_s`: stop by itself when no operator was heard for so long (onDisconnect.stopAfter).
    """

    uid: str
    namespace: str
    name: str
    service: str
    slot: str
    version: str
    container: Container
    image: ImageSpec
    desired_state: str = "Running"
    stack: Optional[str] = None
    attempt: int = 1
    replaces: Optional[str] = None
    handover: str = "StopFirst"
    stop_after_s: Optional[float] = None


@dataclass(frozen=True)
class NodeSpec:
    """The whole wish for one node. `node_name` and `labels` are for people and templates; the rest decides."""

    swarm_id: str
    node_uid: str
    epoch: int
    revision: int
    node_name: str = ""
    tasks: tuple[TaskSpec, ...] = ()
    images: tuple[ImageSpec, ...] = ()


# --- what a node runs


@dataclass(frozen=True)
class Exit:
    """One end of a process. code None: unknown, no supervisor saw it. Times are seconds since 1970."""

    code: Optional[int]
    at: float
    oom_killed: bool = False
    started_at: Optional[float] = None
    reason: Optional[str] = None


@dataclass(frozen=True)
class TaskReport:
    """A task as observed: Preparing, Ready, Starting, Running, Complete, Failed or Rejected; `stopping` once the document lacks it."""

    uid: str
    state: str
    reason: str = ""
    message: str = ""
    restarts: int = 0
    exit_code: Optional[int] = None
    oom_killed: bool = False
    last_exits: tuple[Exit, ...] = ()
    started_at: Optional[float] = None
    pid: Optional[int] = None
    healthy: Optional[bool] = None
    stopping: bool = False


@dataclass(frozen=True)
class ImageReport:
    """An image as the node has it. state: Queued, Pulling, Ready or Failed; done and total are compressed bytes."""

    digest: str
    state: str
    reason: str = ""
    message: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Feature:
    """Something the host can or cannot do. `detail` says what is missing, for people."""

    name: str
    present: bool
    detail: str = ""


@dataclass(frozen=True)
class Listener:
    """A port of the host taken by a process that is not ours."""

    port: int
    protocol: str
    process: str = ""


@dataclass(frozen=True)
class HostFacts:
    """`volumes` are the keys of the named volumes this host has: a task goes back to its data, even after its Service was made anew."""

    host_id: str
    hostname: str
    os: str
    kernel: str
    arch: str
    boot_id: str
    python: str
    agent_version: str
    cpu_millis: int
    memory_bytes: int
    cgroup: str
    features: tuple[Feature, ...] = ()
    listeners: tuple[Listener, ...] = ()
    volumes: tuple[str, ...] = ()
    agent_release: str = ""


@dataclass(frozen=True)
class NodeReport:
    """What changed on a node, or (full) all there is. epoch, revision, hash echo the document in force; `removed` tasks are gone."""

    full: bool
    epoch: int
    revision: int
    hash: str
    tasks: tuple[TaskReport, ...] = ()
    removed: tuple[str, ...] = ()
    images: tuple[ImageReport, ...] = ()
    facts: Optional[HostFacts] = None


@dataclass(frozen=True)
class ImageConfig:
    entrypoint: Optional[tuple[str, ...]] = None
    command: Optional[tuple[str, ...]] = None
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: Optional[str] = None
    healthcheck: Optional[Healthcheck] = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    digest: str
    size: int


@dataclass(frozen=True)
class ResolvedImage:
    """The answer to `resolve`: what a tag or archive means right now, for one platform ("linux/amd64")."""

    digest: str
    platform: str
    size: int
    config: ImageConfig
    layers: tuple[Layer, ...] = ()
    platforms: tuple[str, ...] = ()


# --- frames
#
# A frame is two big-endian u32, the length of a JSON object and of a payload, then both. The object's "type" names the message.
#
# operator → agent
#   hello      protocol, swarmId, nodeUid, epoch, adopt, knownUids (uids of this swarm's Node objects)
#   document   spec: NodeSpec
#   value      key + payload | key, error {code, message}
#   resolve    id, source: ImageSource
#   uninstall  id
#   ping       at
# agent → operator
#   hello      protocol, agentVersion, facts, bound {swarmId, nodeUid, epoch, revision} (absent: bound to nobody yet)
#   accepted   epoch, revision, hash of the document now in force
#   refused    code (OwnedByAnotherSwarm, DuplicateHost, StaleEpoch, StaleRevision), message, epoch
#   need       keys of values the agent lacks
#   report     report: NodeReport
#   resolved   id, image: ResolvedImage | id, error {code, message, retryAfterS: when another try may help}
#   done       id | id, error {code, message}
#   pong       at
#   error      code, message: a frame of unknown type, or malformed
#
# on the host itself, instead of a hello
#   retire     the daemon ends, for one of another version
#   observe    answered by a full report
#   uninstall  answered by done
#
# The agent speaks first (hello); the operator answers with its own; then the agent sends a full report. Both send a frame every 5 s.

_LENGTHS = struct.Struct(">II")


class ProtocolError(Exception):
    """The peer sent bytes that are no frame of this protocol, or a value of another shape."""


def encode(message: dict[str, Any], payload: bytes = b"") -> bytes:
    return frame(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(), payload)


def frame(body: bytes, payload: bytes = b"") -> bytes:
    """`body` is a JSON object in UTF-8. Raises ProtocolError when either is larger than the protocol allows."""
    if len(body) > MAX_BODY or len(payload) > MAX_PAYLOAD:
        raise ProtocolError(f"a frame of {len(body)}+{len(payload)} bytes is larger than the protocol allows")
    return _LENGTHS.pack(len(body), len(payload)) + body + payload


class Decoder:
    """Turns received bytes into frames; keeps what is incomplete until more arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= _LENGTHS.size:
            body_length, payload_length = _LENGTHS.unpack_from(self._buffer)
            if body_length > MAX_BODY or payload_length > MAX_PAYLOAD:
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


# --- dataclass ⇄ JSON

T = TypeVar("T")


def to_wire(value: Any) -> Any:
    """JSON form of a protocol value: camelCase names, fields that hold their default left out."""
    if dataclasses.is_dataclass(value):
        items = ((wire, getattr(value, name), default) for name, wire, default in _fields_out(value.__class__))
        return {wire: to_wire(item) for wire, item, default in items if item != default}
    if isinstance(value, tuple):
        return [to_wire(item) for item in value]
    return value


def from_wire(kind: type[T], data: Any) -> T:
    """The protocol value of class `kind` in `data`; unknown names are ignored.

    Raises ProtocolError naming the field when a required one is missing or a value has another type.
    """
    return typing.cast(T, _read(kind, data, kind.__name__))


def content_hash(value: Any) -> str:
    """sha256 over the canonical JSON of a protocol value or plain JSON data."""
    return hashlib.sha256(json.dumps(to_wire(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


@cache
def _fields_out(kind: type) -> tuple[tuple[str, str, Any], ...]:
    return tuple((f.name, _camel(f.name), _default(f)) for f in dataclasses.fields(kind))


def _default(f: Any) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


@cache
def _fields_in(kind: type) -> tuple[tuple[str, str, Any, bool], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((f.name, _camel(f.name), hints[f.name], _default(f) is dataclasses.MISSING) for f in dataclasses.fields(kind))


def _read(hint: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is typing.Union:
        return None if data is None else _read(typing.get_args(hint)[0], data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise ProtocolError(f"{where}: expected a list, got {type(data).__name__}")
        item = typing.get_args(hint)[0]
        return tuple(_read(item, entry, f"{where}[{index}]") for index, entry in enumerate(data))
    if dataclasses.is_dataclass(hint):
        return _read_object(typing.cast(type, hint), data, where)
    if origin is dict:
        hint = dict
    if hint is float and type(data) is int:
        return float(data)
    if type(data) is not hint:
        raise ProtocolError(f"{where}: expected {hint.__name__}, got {type(data).__name__}")
    return data


def _read_object(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ProtocolError(f"{where}: expected an object, got {type(data).__name__}")
    values = {}
    for name, wire, hint, required in _fields_in(kind):
        if wire in data:
            values[name] = _read(hint, data[wire], f"{where}.{wire}")
        elif required:
            raise ProtocolError(f"{where}: {wire} is missing")
    return kind(**values)
