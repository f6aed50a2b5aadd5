"""A watch on Tasks of the bench's own: it hears a state within a millisecond, without asking in a loop."""

from __future__ import annotations

import http.client
import json
import threading
import time
from types import TracebackType
from typing import Self

from tests.kube import ControlPlane


class TaskWatch:
    """When each Task was first seen Running, and when it was seen gone, by the monotonic clock."""

    def __init__(self, plane: ControlPlane, namespace: str = "default") -> None:
        self._plane = plane
        self._path = f"/apis/moorage.dev/v1alpha1/namespaces/{namespace}/swarmtasks"
        self.running: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self._changed = threading.Condition()
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Self:
        version = self._plane.request("GET", self._path).body["metadata"]["resourceVersion"]
        self._connection = self._plane.connection()
        self._connection.request("GET", f"{self._path}?watch=1&resourceVersion={version}")
        answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, args=(answer,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._connection is not None
        assert self._connection.sock is not None
        self._connection.sock.shutdown(2)
        self._thread.join(5)
        self._connection.close()

    def wait_running(self, count: int, timeout_s: float = 120) -> float:
        """The moment at which so many Tasks had been seen Running."""
        return self._wait(self.running, count, timeout_s)

    def wait_gone(self, count: int, timeout_s: float = 120) -> float:
        return self._wait(self.gone, count, timeout_s)

    def _wait(self, times: dict[str, float], count: int, timeout_s: float) -> float:
        with self._changed:
            if not self._changed.wait_for(lambda: len(times) >= count, timeout_s):
                raise TimeoutError(f"{len(times)} of {count} tasks within {timeout_s:g} s")
            return sorted(times.values())[count - 1]

    def _read(self, answer: http.client.HTTPResponse) -> None:
        while line := answer.readline():
            now, event = time.monotonic(), json.loads(line)
            name = event["object"]["metadata"]["name"]
            with self._changed:
                if event["type"] == "DELETED":
                    self.gone[name] = now
                elif event["object"].get("status", {}).get("state") == "Running":
                    self.running.setdefault(name, now)
                self._changed.notify_all()
