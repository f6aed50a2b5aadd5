"""Image configurations. Hostile input: whatever is in one describes a process, and never steers the agent.

Source: opencontainers/image-spec config.md; Docker's additions (Healthcheck, nanoseconds, 0 = default) from its image specification v1.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from moorage_agent.errors import ImageError
from moorage_agent.images.digest import checked
from moorage_agent.images.manifest import MAX_LAYERS, json_object
from moorage_agent.images.platforms import Platform
from moorage_agent.protocol import Healthcheck, ImageConfig

_MAX_ITEMS = 10_000
_MAX_TEXT = 128 * 1024  # the kernel's MAX_ARG_STRLEN: no longer string can be passed to a program


@dataclass(frozen=True)
class ConfigFile:
    """`diff_ids` lowest layer first: digests of the uncompressed layers."""

    platform: Platform
    diff_ids: tuple[str, ...]
    config: ImageConfig


def parse_config(body: bytes, *, of: str) -> ConfigFile:
    """Raises ImageError(InvalidImage)."""
    data = json_object(body, of=f"the configuration of {of}")
    return ConfigFile(_platform(data, of=of), _diff_ids(data, of=of), _image_config(_object(data, "config", of=of), of=of))


def rootfs_config(diff_id: str) -> bytes:
    """The configuration of an image that is a bare root file system: the same tar always gives the same digest, on any machine."""
    data = {"config": {}, "os": "linux", "rootfs": {"diff_ids": [diff_id], "type": "layers"}}
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _platform(data: dict[str, Any], *, of: str) -> Platform:
    return Platform(*(_text(data, name, of=of) for name in ("os", "architecture", "variant")))


def _diff_ids(data: dict[str, Any], *, of: str) -> tuple[str, ...]:
    diff_ids = _object(data, "rootfs", of=of).get("diff_ids")
    if not isinstance(diff_ids, list) or len(diff_ids) > MAX_LAYERS:
        raise ImageError("InvalidImage", f"the configuration of {of} does not list its layers (rootfs.diff_ids)")
    return tuple(checked(item, of=f"a layer in the configuration of {of}") for item in diff_ids)


def _image_config(data: dict[str, Any], *, of: str) -> ImageConfig:
    return ImageConfig(
        entrypoint=_texts(data, "Entrypoint", of=of),
        command=_texts(data, "Cmd", of=of),
        env=_texts(data, "Env", of=of) or (),
        user=_text(data, "User", of=of),
        working_dir=_text(data, "WorkingDir", of=of),
        ports=_keys(data, "ExposedPorts", of=of),
        volumes=_keys(data, "Volumes", of=of),
        stop_signal=_text(data, "StopSignal", of=of) or None,
        healthcheck=_healthcheck(data, of=of),
        labels=_labels(data, of=of),
    )


def _healthcheck(data: dict[str, Any], *, of: str) -> Healthcheck | None:
    """Docker's, except that intervals of 0 mean its defaults. An empty Test inherits from a parent image, which pulled images have not."""
    check = _object(data, "Healthcheck", of=of)
    test = _texts(check, "Test", of=of)
    if not test:
        return None
    if test[0] == "NONE":
        return Healthcheck(disabled=True)
    if test[0] == "CMD-SHELL" and len(test) == 2:
        argv: tuple[str, ...] = (*(_texts(data, "Shell", of=of) or ("/bin/sh", "-c")), test[1])
    elif test[0] == "CMD" and len(test) > 1:
        argv = test[1:]
    else:
        raise ImageError("InvalidImage", f"the health check of {of} is none of NONE, CMD, CMD-SHELL: {test[0][:40]!r}")
    return Healthcheck(
        exec=argv,
        interval_s=_seconds(check, "Interval", default=30.0, of=of),
        timeout_s=_seconds(check, "Timeout", default=30.0, of=of),
        retries=_whole(check, "Retries", of=of) or 3,
        start_period_s=_seconds(check, "StartPeriod", default=0.0, of=of),
        start_interval_s=_seconds(check, "StartInterval", default=5.0, of=of),
    )


def _labels(data: dict[str, Any], *, of: str) -> dict[str, str]:
    labels = _object(data, "Labels", of=of)
    return {_plain(name, f"a label of {of}"): _plain(value, f"the label {name[:40]} of {of}") for name, value in labels.items()}


def _object(data: dict[str, Any], name: str, *, of: str) -> dict[str, Any]:
    value = data.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
        raise _invalid(name, of, "is no object, or a huge one")
    return value


def _keys(data: dict[str, Any], name: str, *, of: str) -> tuple[str, ...]:
    return tuple(_plain(key, f"{name} of {of}") for key in _object(data, name, of=of))


def _texts(data: dict[str, Any], name: str, *, of: str) -> tuple[str, ...] | None:
    """null and absent are None, which is not the same as an empty list. Old tools wrote one string for a list of one."""
    value = data.get(name)
    if value is None:
        return None
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > _MAX_ITEMS:
        raise _invalid(name, of, "is no list of texts, or a huge one")
    return tuple(_plain(item, f"{name} of {of}") for item in items)


def _text(data: dict[str, Any], name: str, *, of: str) -> str:
    value = data.get(name)
    return "" if value is None else _plain(value, f"{name} of {of}")


def _plain(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or "\0" in value:
        raise ImageError("InvalidImage", f"{what} is no text, longer than {_MAX_TEXT >> 10} KiB, or holds a NUL")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can escape half a surrogate pair, which no program can be given
        raise ImageError("InvalidImage", f"{what} is not valid Unicode") from error
    return value


def _seconds(data: dict[str, Any], name: str, *, default: float, of: str) -> float:
    nanoseconds = _whole(data, name, of=of)
    return nanoseconds / 1e9 if nanoseconds else default


def _whole(data: dict[str, Any], name: str, *, of: str) -> int:
    value = data.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise _invalid(name, of, "is no whole number, or negative")
    return value


def _invalid(name: str, of: str, why: str) -> ImageError:
    return ImageError("InvalidImage", f"{name} in the configuration of {of} {why}")
