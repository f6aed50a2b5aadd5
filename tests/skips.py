"""A test that silently does not run proves nothing: any skip but these fails the run. Each says what this machine cannot have."""

from __future__ import annotations

import re
from typing import Final

import pytest

EXPECTED: Final = (
    "compression.zstd came with Python 3.14",
    "the kernel forgets exit codes of processes that were waited for",
    "int 0x80 is of x86",
    "the kernel has no FUSE",
    "Python [0-9.]+ is not on this machine",
)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        return  # a worker: its skips are counted where the run is told
    reasons = {_reason(report) for report in reporter.stats.get("skipped", [])}
    unexpected = sorted(reason for reason in reasons if not any(re.search(known, reason) for known in EXPECTED))
    if unexpected and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[_UNEXPECTED] = unexpected


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason in config.stash.get(_UNEXPECTED, []):
        terminalreporter.write_line(f"unexpected skip: {reason}", red=True)


_UNEXPECTED: Final = pytest.StashKey[list[str]]()


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
