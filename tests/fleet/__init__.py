"""Bare hosts, for tests, the demo and the benchmarks. A host's first process imports from here with nothing but the standard library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fleet.bare_host import BareHost
    from tests.fleet.bridge import Bridge
    from tests.fleet.own_kernel.kernel_host import KernelHost
    from tests.fleet.spec import HostSpec

__all__ = ["BareHost", "Bridge", "HostSpec", "KernelHost"]

_HOMES = {"BareHost": "bare_host", "Bridge": "bridge", "HostSpec": "spec", "KernelHost": "own_kernel.kernel_host"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"tests.fleet.{_HOMES[name]}"), name)
