from __future__ import annotations

import os

import pytest

from tests.root.daemon.agent_host import AgentHost

pytestmark = pytest.mark.root


def test_a_container_runs_from_a_document(host: AgentHost) -> None:
    host.start()
    operator = host.connect()
    task = host.task(operator, "sh", "-c", "echo hello from $HOSTNAME; exec sleep 1000")
    operator.push(task)
    operator.wait_state("Running", task)
    pid = operator.tasks[task.uid].pid
    assert pid is not None
    assert os.path.exists(f"/proc/{pid}")
    operator.push()
    operator.wait("removal", lambda: task.uid in operator.removed)
    assert not os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(host.paths.task(task.uid))
