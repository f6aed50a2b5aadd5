"""The loader on this machine's own Python: the program that a host's shell starts, fed as SSH would feed it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from moorage_operator.errors import AgentError, AuthenticationFailed, Refused
from moorage_operator.fleet import loader
from moorage_operator.fleet.archive import Archive, agent_archive, archive_of
from moorage_operator.fleet.backoff import delay_s

AGENT = archive_of({"__main__.py": b"import sys; print('running', *sys.argv[1:])\n"})
NEWER = archive_of({"__main__.py": b"import sys; print('newer', *sys.argv[1:])\n"})


def load(root: Path, archive: Archive, *, upgrade: bool = False) -> tuple[list[dict[str, str]], str]:
    line = loader.command("None", archive.sha256, len(archive.data), upgrade=upgrade, root=str(root))
    process = subprocess.Popen(["/bin/sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
    assert process.stdin
    assert process.stdout
    process.stdin.write(loader.PROGRAM.encode())
    process.stdin.flush()
    greetings = [json.loads(process.stdout.readline())]
    if "want" in greetings[0]:
        process.stdin.write(archive.data)
        process.stdin.flush()
        greetings.append(json.loads(process.stdout.readline()))
    process.stdin.close()
    rest = process.stdout.read().decode()
    process.stdout.close()
    process.wait()
    return greetings, rest


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the loader insists on root")


@needs_root
def test_a_bare_host_asks_for_the_archive_once(tmp_path: Path) -> None:
    assert load(tmp_path, AGENT) == ([{"want": AGENT.sha256}, {"agent": AGENT.sha256}], "running dial\n")
    assert load(tmp_path, AGENT) == ([{"agent": AGENT.sha256}], "running dial\n")


@needs_root
def test_the_version_at_work_is_kept_until_an_upgrade_is_asked_for(tmp_path: Path) -> None:
    load(tmp_path, AGENT)
    (tmp_path / "agent" / "current").symlink_to(AGENT.sha256)
    assert load(tmp_path, NEWER)[1] == "running dial\n"
    assert load(tmp_path, NEWER, upgrade=True)[1] == "newer dial\n"


@needs_root
def test_a_damaged_archive_is_never_unpacked(tmp_path: Path) -> None:
    damaged = Archive(AGENT.sha256, NEWER.data)
    greetings, rest = load(tmp_path, damaged)
    assert greetings[1]["error"] == "ArchiveDamaged"
    assert rest == ""
    assert list((tmp_path / "agent").iterdir()) == []


def full_of(tmp_path: Path, options: str) -> Path:
    """A file system of its own, mounted so."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(root)], check=True)
    return root


@needs_root
@pytest.mark.root
@pytest.mark.parametrize(("options", "why"), [("size=1m,ro", "Read-only file system"), ("size=4k,nr_inodes=1", "No space left on device")])
def test_a_first_install_that_finds_no_room_says_why(tmp_path: Path, options: str, why: str) -> None:
    root = full_of(tmp_path, options)
    try:
        greetings, _ = load(root, AGENT)
    finally:
        subprocess.run(["umount", str(root)], check=True)
    assert greetings[-1]["error"] == "CannotInstall"
    assert why in greetings[-1]["message"]


@needs_root
@pytest.mark.root
def test_what_a_full_disk_kept_from_being_unpacked_does_not_fill_it_further(tmp_path: Path) -> None:
    root, large = full_of(tmp_path, "size=200k"), archive_of({"__main__.py": b"pass\n", "large": os.urandom(1 << 20)})
    try:
        for _ in range(2):
            greetings, _ = load(root, large)
            assert greetings[-1]["error"] == "CannotInstall"
            assert "No space left on device" in greetings[-1]["message"]
            assert list((root / "agent").iterdir()) == []
    finally:
        subprocess.run(["umount", str(root)], check=True)


@needs_root
def test_what_a_loader_left_that_was_killed_is_swept_away_and_what_one_is_unpacking_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, under_way = (tmp_path / "agent" / f".{NEWER.sha256}.{pid}" for pid in (ended.pid, os.getpid()))
    left.mkdir(parents=True)
    under_way.mkdir()
    load(tmp_path, AGENT)
    assert not left.exists()
    assert under_way.exists()


@needs_root
def test_files_belong_to_root_alone(tmp_path: Path) -> None:
    load(tmp_path, AGENT)
    folder = tmp_path / "agent" / AGENT.sha256
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "__main__.py").stat().st_mode & 0o777 == 0o600


@needs_root
def test_old_versions_go_and_the_one_at_work_stays(tmp_path: Path) -> None:
    load(tmp_path, AGENT)
    (tmp_path / "agent" / "current").symlink_to(AGENT.sha256)
    os.utime(tmp_path / "agent" / AGENT.sha256, (1, 1))
    for number in range(5):
        load(tmp_path, archive_of({"__main__.py": b"pass\n", "n": str(number).encode()}), upgrade=True)
    kept = [entry.name for entry in (tmp_path / "agent").iterdir() if len(entry.name) == 64]
    assert AGENT.sha256 in kept
    assert len(kept) <= 5


def test_the_command_is_one_line_without_user_data() -> None:
    line = loader.command("Auto", AGENT.sha256, 1, upgrade=False, root="/var/lib/moorage")
    assert "\n" not in line
    assert "!" not in line


def test_the_same_source_gives_the_same_archive() -> None:
    assert archive_of({"b": b"2", "a": b"1"}) == archive_of({"a": b"1", "b": b"2"})
    assert agent_archive().sha256 == agent_archive().sha256


def test_delays_double_and_what_a_person_has_to_mend_waits_much_longer() -> None:
    assert [delay_s(Refused(""), attempt, random=0) for attempt in (1, 2, 3, 10)] == [0.5, 1, 2, 30]
    assert [delay_s(AuthenticationFailed(""), attempt, random=0) for attempt in (1, 2, 3, 10)] == [30, 60, 120, 600]
    for code, longer in {"OwnedByAnotherSwarm": 30, "DuplicateHost": 30, "ProtocolVersion": 30, "StaleEpoch": 0.5}.items():
        assert delay_s(AgentError("", reason=code), 1, random=0) == longer
