"""The words operator and agent share: what a node should run, what it runs, and how both travel.

The operator imports this package and nothing else of the agent. Values are frozen dataclasses; on the wire they are camelCase JSON objects
without their absent fields. A peer of another version may send fields unknown here: they are ignored. Seconds are floats, memory is bytes,
cpu is thousandths of a core. Nothing secret is ever a field of a document: values travel as payloads of `value` frames, by key.
"""

from __future__ import annotations

from moorage_agent.protocol.container import (
    Container,
    DataFile,
    Device,
    EnvVar,
    Healthcheck,
    LogLimits,
    Mount,
    Port,
    Resources,
    Restart,
    Security,
    Sysctl,
    Ulimit,
)
from moorage_agent.protocol.document import ImageSource, ImageSpec, NodeSpec, TaskSpec
from moorage_agent.protocol.frames import MAX_AGENT_BODY, Decoder, encode, frame
from moorage_agent.protocol.report import (
    Exit,
    Feature,
    HostFacts,
    ImageConfig,
    ImageReport,
    Layer,
    Listener,
    NodeReport,
    ResolvedImage,
    TaskReport,
)
from moorage_agent.protocol.wire import ProtocolError, content_hash, from_wire, to_wire

PROTOCOL = 1
RELEASE = "0.1.0"
"""The release this agent belongs to. Builds of one release differ in their archive's sha256 alone."""

__all__ = [
    "MAX_AGENT_BODY",
    "PROTOCOL",
    "RELEASE",
    "Container",
    "DataFile",
    "Decoder",
    "Device",
    "EnvVar",
    "Exit",
    "Feature",
    "Healthcheck",
    "HostFacts",
    "ImageConfig",
    "ImageReport",
    "ImageSource",
    "ImageSpec",
    "Layer",
    "Listener",
    "LogLimits",
    "Mount",
    "NodeReport",
    "NodeSpec",
    "Port",
    "ProtocolError",
    "ResolvedImage",
    "Resources",
    "Restart",
    "Security",
    "Sysctl",
    "TaskReport",
    "TaskSpec",
    "Ulimit",
    "content_hash",
    "encode",
    "frame",
    "from_wire",
    "to_wire",
]
