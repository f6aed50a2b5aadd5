"""The real daemon, unpacked as on a host, with the real runtime and image store, on directories of the test's own."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moorage_operator.fleet.archive import agent_archive

from tests.kube.archives import write_docker_save
from tests.kube.images import busybox
from tests.machine import MissingOnMachine
from tests.root.daemon.agent_host import AgentHost


@pytest.fixture(scope="session")
def agent_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's archive unpacked in a directory named by its sha256."""
    archive = agent_archive()
    home = tmp_path_factory.mktemp("agent") / archive.sha256
    with zipfile.ZipFile(io.BytesIO(archive.data)) as file:
        file.extractall(home)
    return home


@pytest.fixture(scope="session")
def busybox_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BusyBox as `docker save` writes it."""
    try:
        return write_docker_save(tmp_path_factory.mktemp("images") / "busybox.tar", busybox(), "busybox:1")
    except MissingOnMachine as missing:
        pytest.skip(str(missing))


@pytest.fixture
def make_host(agent_home: Path, busybox_archive: Path, tmp_path: Path) -> Iterator[Callable[[], AgentHost]]:
    made: list[AgentHost] = []

    def make() -> AgentHost:
        host = AgentHost(agent_home, tmp_path / f"host{len(made)}", busybox_archive)
        made.append(host)
        return host

    yield make
    for host in made:
        host.destroy()


@pytest.fixture
def host(make_host: Callable[[], AgentHost]) -> AgentHost:
    return make_host()
