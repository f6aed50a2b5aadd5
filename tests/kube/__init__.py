"""A real Kubernetes control plane and a real image registry, for tests, the demo and the benchmarks."""

from tests.kube.binaries import binary
from tests.kube.control_plane import ControlPlane

__all__ = ["ControlPlane", "binary"]
