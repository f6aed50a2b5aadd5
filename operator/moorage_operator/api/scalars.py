"""The bounded scalars of the API. Each says what to write where the server refuses it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic_core import CoreSchema

from moorage_operator.api.schema import rule, text

LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
DURATION = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
CPU = r"^([0-9]{1,9}m|[0-9]{1,6}(\.[0-9]{1,3})?)$"
MEMORY = r"^[0-9]{1,15}(\.[0-9]{1,3})?(k|M|G|T|Ki|Mi|Gi|Ti)?$"
IMAGE = "^[a-zA-Z0-9]([a-zA-Z0-9.-]*(:[0-9]{1,5})?/)?[a-z0-9._/-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
PATH = "^/[^:]*$"

ShortName = Annotated[
    str, text(30, rule(f"self.matches('{LABEL}')", 'write lower-case letters, digits and "-", at most 30 of them, such as web or db-1'))
]
Label = Annotated[
    str, text(63, rule(f"self.matches('{LABEL}')", 'write lower-case letters, digits and "-", at most 63 of them, such as http'))
]
ObjectName = Annotated[
    str, text(253, rule(f"self.matches('{SUBDOMAIN}')", 'write the name of an object: lower-case letters, digits, "-" and "."'))
]
RefName = Annotated[str, text(253, pattern=SUBDOMAIN)]
DataKey = Annotated[str, text(253, pattern="^[-._a-zA-Z0-9]+$")]
"""These two stand in lists of lists, where a CEL rule would cost more than the server allows: a pattern, which costs nothing."""
Duration = Annotated[str, text(24, rule(f"self.matches('{DURATION}')", "write a duration such as 10s, 1m30s or 500ms"))]
Positive = Annotated[
    str,
    text(
        24,
        rule(f"self.matches('{DURATION}')", "write a duration such as 10s, 1m30s or 500ms"),
        rule(f"!self.matches('{DURATION}') || duration(self) > duration('0s')", "write a duration above zero, such as 10s"),
    ),
]
ImageReference = Annotated[
    str,
    text(
        512,
        rule(
            f"self.matches('{IMAGE}')",
            "write an image reference such as registry.example/app:1.2 or app@sha256:<64 hex digits>: no https://, no spaces, lower case",
        ),
    ),
]
Digest = Annotated[str, text(71, rule("self.matches('^sha256:[0-9a-f]{64}$')", "write sha256: and 64 hex digits"))]
AbsolutePath = Annotated[
    str,
    text(
        512,
        rule(
            "self.startsWith('/') && !self.contains('/../') && !self.endsWith('/..')",
            'write an absolute path without "..", such as /etc/app',
        ),
    ),
]
FileMode = Annotated[str, text(4, rule("self.matches('^0?[0-7]{3}$')", 'write three octal digits, quoted, such as "0440"'))]
Word = Annotated[str, text(128)]
"""A CamelCase word that the operator writes. No enum: an older CRD must not refuse the status of a newer operator."""
Message = Annotated[str, text(32768, least=0)]
MAX_LINE: Final = 256
Line = Annotated[str, text(MAX_LINE, least=0)]
Argument = Annotated[str, text(32768, least=0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Bytes = Annotated[int, Field(ge=0, le=2**62)]
Id = Annotated[int, Field(ge=0, le=2**32 - 2)]
LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]


class _IntOrString:
    """A quantity may be written without quotes. The server estimates CEL on such a field as if it were megabytes long: hence `pattern`."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"x-kubernetes-int-or-string": True, "maxLength": 24, "pattern": self.pattern}


def _unquoted(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Cpu = Annotated[str, BeforeValidator(_unquoted), Field(max_length=24), _IntOrString(CPU)]
"""Cores: "500m", 1.5 as "1.5", 2. See quantity.cpu_millis."""
Memory = Annotated[str, BeforeValidator(_unquoted), Field(max_length=24), _IntOrString(MEMORY)]
"""Bytes: "256Mi", "1G". See quantity.memory_bytes."""


def rfc3339(moment: datetime) -> str:
    """As metav1.Time: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, PlainSerializer(rfc3339, when_used="json")]
