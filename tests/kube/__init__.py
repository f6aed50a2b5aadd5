"""A real Kubernetes control plane and a real image registry, for tests, the demo and the benchmarks."""

from tests.kube.binaries import binary
from tests.kube.control_plane import ControlPlane
from tests.kube.images import Entry, Image, Index, Layer, busybox, make_layer
from tests.kube.push import busybox_image, push
from tests.kube.registry import Login, Registry

__all__ = [
    "ControlPlane",
    "Entry",
    "Image",
    "Index",
    "Layer",
    "Login",
    "Registry",
    "binary",
    "busybox",
    "busybox_image",
    "make_layer",
    "push",
]
