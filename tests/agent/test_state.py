from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from moorage_agent.errors import InvalidTask
from moorage_agent.intake import Intake
from moorage_agent.ownership import Binding
from moorage_agent.paths import Paths
from moorage_agent.protocol import Exit, NodeSpec, ProtocolError, content_hash, to_wire
from moorage_agent.state import HostState, TaskStore
from moorage_agent.task_state import End, Record, Stop, signal_number
from moorage_agent.volumes import check_bind, make_volume, volume_keys

from tests.agent.fake_host import document, task, uid

BINDING = Binding("swarm", "node", 1)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(f"{tmp_path}/disk", f"{tmp_path}/run")
    made.make()
    return made


def with_news(data: Any) -> Any:
    """`data` as a newer agent would write it: each object in it has a field more."""
    if isinstance(data, list):
        return [with_news(item) for item in data]
    if isinstance(data, dict):
        return {**{name: with_news(value) for name, value in data.items()}, "news": {"of": ["a", 1, None]}}
    return data


def keep(host: HostState, spec: NodeSpec) -> None:
    host.save_document(to_wire(spec), content_hash(spec))


def test_the_document_in_force_outlives_the_daemon(paths: Paths) -> None:
    host, wish = HostState(paths), document(task(1), revision=7)
    keep(host, wish)
    assert HostState(paths).document(BINDING) == (wish, content_hash(wish))


def test_a_power_cut_that_tears_the_newest_document_leaves_the_one_before(paths: Paths) -> None:
    host, older = HostState(paths), document(task(1), revision=1)
    keep(host, older)
    host.sync()
    keep(host, document(task(1), task(2), revision=2))
    newest = max(os.scandir(paths.state), key=lambda entry: entry.stat().st_mtime_ns)
    os.truncate(newest.path, 100)
    assert HostState(paths).document(BINDING) == (older, content_hash(older))


def test_many_documents_before_the_first_sync_spare_the_synced_slot(paths: Paths) -> None:
    host = HostState(paths)
    keep(host, document(revision=1))
    host.sync()
    synced = {entry.name for entry in os.scandir(paths.state) if entry.name.startswith("document")}
    for revision in range(2, 9):
        keep(host, document(revision=revision))
    found = HostState(paths).document(BINDING)
    assert found is not None
    assert found[0].revision == 8
    (written,) = {entry.name for entry in os.scandir(paths.state) if entry.name.startswith("document")} - synced
    os.unlink(f"{paths.state}/{written}")
    found = HostState(paths).document(BINDING)
    assert found is not None
    assert found[0].revision == 1


def test_a_document_of_an_earlier_owner_is_not_obeyed(paths: Paths) -> None:
    keep(HostState(paths), document(task(1), epoch=99))
    assert HostState(paths).document(Binding("other", "node", 1)) is None


def test_the_host_id_is_made_once(paths: Paths) -> None:
    assert HostState(paths).host_id() == HostState(paths).host_id()


def test_the_binding_outlives_everything(paths: Paths) -> None:
    assert HostState(paths).binding() is None
    HostState(paths).save_binding(BINDING)
    assert HostState(paths).binding() == BINDING


def test_a_tasks_record_and_spec_are_read_as_they_were_written(paths: Paths) -> None:
    record = Record(
        run=3, noted=2, exits=(Exit(1, 5.0, started_at=4.0),), stop=Stop("Removed", "b", 1.0), end=End("Failed", "MaxAttempts", "x")
    )
    store = TaskStore(paths)
    store.save_record(uid(1), record)
    store.save_spec(task(1))
    assert store.known() == [uid(1)]
    assert store.record(uid(1)) == record
    assert store.spec(uid(1)) == task(1)
    store.remove(uid(1))
    assert store.known() == []


def test_a_record_that_shrinks_and_grows_past_a_block_is_read_whole(paths: Paths) -> None:
    store = TaskStore(paths)
    for length in (10, 9000, 20, 5000, 0):
        record = Record(run=length, message="x" * length)
        store.save_record(uid(1), record)
        assert store.record(uid(1)) == record


def test_what_a_newer_agent_kept_is_read_by_an_older_one(paths: Paths) -> None:
    """An operator that is rolled back brings its older agent: fields unknown to it are nothing to it, wherever they stand."""
    host, store, wish = HostState(paths), TaskStore(paths), document(task(1), task(2), revision=7, epoch=3)
    exits = (Exit(1, 5.0, started_at=4.0),)
    record = Record(run=3, noted=2, exits=exits, message="x", stop=Stop("Removed", "b", 1.0), end=End("Failed", "MaxAttempts", "x"))
    newer = with_news(to_wire(wish))
    assert content_hash(newer) != content_hash(wish)
    host.save_document(newer, content_hash(newer))
    store.save_spec(task(1))
    store.save_record(uid(1), record)
    host.save_binding(BINDING)
    for path in (f"{paths.task(uid(1))}/task.json", f"{paths.task(uid(1))}/record.json", f"{paths.state}/binding.json"):
        Path(path).write_text(json.dumps(with_news(json.loads(Path(path).read_text()))))
    assert HostState(paths).binding() == BINDING
    assert HostState(paths).document(BINDING) == (wish, content_hash(newer))
    assert TaskStore(paths).spec(uid(1)) == task(1)
    assert TaskStore(paths).record(uid(1)) == record


@pytest.mark.parametrize("damage", [b"", b"{", b'{"run": "x"}', b"[]"])
def test_a_damaged_record_is_a_fresh_one(paths: Paths, damage: bytes) -> None:
    store = TaskStore(paths)
    store.save_record(uid(1), Record(run=3))
    Path(paths.task(uid(1)), "record.json").write_bytes(damage)
    assert store.record(uid(1)) == Record()


@pytest.mark.parametrize("bad", ["", "../../etc", uid(1) + "x", uid(1)[:-1] + "/", "A" * 36])
def test_a_uid_that_is_none_never_becomes_a_path(paths: Paths, bad: str) -> None:
    with pytest.raises(InvalidTask):
        paths.task(bad)


def test_nothing_of_ours_is_readable_by_others(paths: Paths) -> None:
    for path in (paths.root, paths.run, paths.state, paths.tasks):
        assert os.stat(path).st_mode & 0o077 == 0


def test_an_unchanged_task_is_parsed_once() -> None:
    intake = Intake()
    first, _ = intake.read(to_wire(document(task(1), task(2))))
    second, digest = intake.read(to_wire(document(task(1), task(2, "exit", "0"), revision=2)))
    assert first.tasks[0] is second.tasks[0]
    assert second.tasks[1].container.command == ("exit", "0")
    assert digest == content_hash(second)


@pytest.mark.parametrize(
    "data", [None, [], {"tasks": {}}, {**to_wire(document()), "tasks": [{}]}, {**to_wire(document()), "tasks": [to_wire(task(1))] * 2}]
)
def test_a_document_that_is_none_is_refused(data: Any) -> None:
    with pytest.raises(ProtocolError):
        Intake().read(data)


def test_a_volume_is_made_once_and_listed(paths: Paths) -> None:
    path = make_volume(paths, "default/shop/data")
    Path(path, "kept").touch()
    assert make_volume(paths, "default/shop/data") == path
    assert os.listdir(path) == ["kept"]
    make_volume(paths, "default/shop/data/2")
    assert volume_keys(paths) == ("default/shop/data", "default/shop/data/2")


@pytest.mark.parametrize("source", ["relative", "/a/../etc", "/does/not/exist", "/nul\0"])
def test_a_bind_source_must_be_there(source: str) -> None:
    with pytest.raises(InvalidTask):
        check_bind(source, target="/x")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("QUIT", 3),
        ("SIGCLD", 17),
        ("SIGSTKFLT", 16),  # Python knows it since 3.11
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMIN+30", 64),
        ("rtmax", 64),
        ("SIGRTMAX-1", 63),
        ("SIGRTMAX-30", 34),
    ],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert signal_number(text) == number


NO_SIGNALS = ("", "$SIG", "SIGNOPE", "0", "65", "²", "SIGRTMIN+x", "SIGRTMIN-1", "SIGRTMIN+31", "SIGRTMAX+1", "SIGRTMAX-31", "SIGTERM+1")


@pytest.mark.parametrize("text", NO_SIGNALS)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidTask):
        signal_number(text)
