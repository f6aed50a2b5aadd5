"""Keys of the values that agents ask for: kind/namespace/object/entry, for data with /hash of its content at the end. Pure."""

from __future__ import annotations

from typing import Final

_OF_SECRETS: Final = ("secret", "pull")
_OF_CONFIG_MAPS: Final = ("config", "ca")


def of_object(kind: str, key: tuple[str, str], value_key: str) -> bool:
    """Whether the value is an entry of the Secret or ConfigMap named by namespace and name."""
    head, namespace, name, _ = value_key.split("/", 3)
    return (namespace, name) == key and head in (_OF_SECRETS if kind == "Secret" else _OF_CONFIG_MAPS)


def changes_under_its_key(value_key: str) -> bool:
    """Credentials, certificates, and data whose changes a Service ignores: no hash in the key tells one content from the next."""
    head, _, _, entry = value_key.split("/", 3)
    return head in ("pull", "ca") or "/" not in entry
