"""Environment variables of a container."""

from __future__ import annotations

from typing import Annotated

from moorage_operator.api.meta import KeyRef, LocalRef
from moorage_operator.api.schema import Model, one_of, rule, text

EnvName = Annotated[
    str,
    text(128, rule("self.matches('^[A-Za-z_][-._A-Za-z0-9]*$')", 'write letters, digits and "_", not a digit first, such as LOG_LEVEL')),
]


class EnvSource(Model):
    """Where the value of a variable comes from."""

    rules = (one_of("secretKeyRef", "configMapKeyRef", hint="write secretKeyRef: {name: ..., key: ...}"),)

    secret_key_ref: KeyRef | None = None
    """An entry of a Secret."""

    config_map_key_ref: KeyRef | None = None
    """An entry of a ConfigMap."""


class EnvVar(Model):
    """One environment variable."""

    rules = (
        one_of(
            "value",
            "valueFrom",
            hint='write value: "..." (quote numbers and booleans), or valueFrom: {secretKeyRef: {name: ..., key: ...}}',
        ),
    )

    name: EnvName
    """Name of the variable."""

    value: Annotated[str, text(32768, least=0)] | None = None
    """The value in clear. {{.Node.Hostname}} (the name of the Node), {{.Task.Slot}}, {{.Task.Name}} and {{.Service.Name}} are replaced."""

    value_from: EnvSource | None = None
    """Takes the value from a Secret or ConfigMap instead."""


class EnvFrom(Model):
    """A whole Secret or ConfigMap as variables, one for each key. A variable of the same name in env wins."""

    rules = (one_of("secretRef", "configMapRef", hint="write secretRef: {name: ...}"),)

    prefix: Annotated[str, text(64, least=0)] | None = None
    """Put before each key to make the name of the variable."""

    secret_ref: LocalRef | None = None
    """The Secret."""

    config_map_ref: LocalRef | None = None
    """The ConfigMap."""
