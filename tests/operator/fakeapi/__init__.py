"""An API server in memory, for tests: it keeps Kubernetes' rules of versions, uids, finalizers, patches and watches, and breaks on demand.

The behaviour suite in tests/operator/kube runs against it and against a real one.
"""

from tests.operator.fakeapi.faults import Faults
from tests.operator.fakeapi.refusal import Refusal, invalid
from tests.operator.fakeapi.server import FakeApi
from tests.operator.fakeapi.store import Store

__all__ = ["FakeApi", "Faults", "Refusal", "Store", "invalid"]
