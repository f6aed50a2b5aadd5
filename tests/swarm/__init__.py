"""A whole swarm on this machine: control plane, operator, hosts, registry. For the end-to-end tests, the demo and the benchmarks."""

from tests.swarm.manifests import node, service, stack
from tests.swarm.operator import OperatorProcess
from tests.swarm.swarm import Swarm

__all__ = ["OperatorProcess", "Swarm", "node", "service", "stack"]
