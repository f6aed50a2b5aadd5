"""For people on the host: what runs, its output, what is wrong here, and how to be rid of it all."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any, Callable

from moorage_agent.errors import AgentError
from moorage_agent.paths import Paths
from moorage_agent.protocol import Decoder, NodeReport, TaskReport, encode, from_wire
from moorage_agent.state import TaskStore

LOOK_EVERY_S = 5.0


def table(paths: Paths) -> str:
    """One line per task: name, state, restarts, age, and why."""
    store, report = TaskStore(paths), from_wire(NodeReport, observed(paths))
    rows = [("TASK", "STATE", "RESTARTS", "PID", "UP", "MESSAGE")]
    rows += sorted(_row(store, task) for task in report.tasks)
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]).rstrip() for row in rows)


def observed(paths: Paths) -> dict[str, Any]:
    """The daemon's full report. Raises AgentError when none listens."""
    return asyncio.run(_ask(paths, {"type": "observe"}, "report"))["report"]  # type: ignore[no-any-return]


def print_logs(paths: Paths, task: str, *, follow: bool, tail: int | None, since_s: float | None) -> None:
    """What a task wrote; `task` is its name or uid, or the beginning of one."""
    from moorage_agent.runtime.log_reader import read_lines

    directory = f"{paths.task(find_task(paths, task))}/log"
    since = None if since_s is None else time.time() - since_s
    for line in read_lines(directory, follow=follow, tail=tail, since=since):
        stream = sys.stderr if line.stream == "stderr" else sys.stdout
        stream.buffer.write(line.text)
        stream.flush()


def find_task(paths: Paths, wanted: str) -> str:
    """The uid of the one task so named. Raises AgentError when there is none, or more than one."""
    store = TaskStore(paths)
    names = {uid: (spec.name if spec else "") for uid in store.known() for spec in [store.spec(uid)]}
    found = [uid for uid, name in names.items() if wanted in (uid, name)] or [
        uid for uid, name in names.items() if uid.startswith(wanted) or name.startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    what = "no task" if not found else f"{len(found)} tasks"
    raise AgentError("Usage", f"{what} on this node begins with {wanted!r}; `ps` lists them")


def diagnosis(paths: Paths) -> tuple[list[str], bool]:
    """What this host has and lacks, in words; false when no container can be started."""
    from moorage_agent.facts import host_facts
    from moorage_agent.features import missing
    from moorage_agent.runtime.runtime import Runtime

    runtime = Runtime(paths, cgroup_root=paths.cgroup_root)
    facts = host_facts(paths, "", runtime.features())
    runtime.close()
    lines = [f"{facts.os}, kernel {facts.kernel}, {facts.arch}, Python {facts.python}, cgroup {facts.cgroup}"]
    lines += [
        f"  {'has' if feature.present else 'LACKS'} {feature.name}{': ' + feature.detail if feature.detail else ''}"
        for feature in facts.features
    ]
    lines += [f"  port {one.port}/{one.protocol} is taken by {one.process or 'an unknown process'}" for one in facts.listeners]
    if os.geteuid() != 0:
        lines.append("  this ran without root: much of the above may be wrong")
    lacking = missing(facts.features)
    lines.append("no container can be started here" if lacking else "containers can be started here")
    return lines, not lacking


async def uninstall(paths: Paths) -> None:
    """Remove everything through the daemon, as its operator would, and say on stderr what is left. Raises AgentError with its words."""

    def look(report: NodeReport) -> None:
        print(_left(TaskStore(paths), report), file=sys.stderr, flush=True)

    done = await _ask(paths, {"type": "uninstall"}, "done", look=look)
    if "error" in done:
        raise AgentError(done["error"]["code"], done["error"]["message"])


def _left(store: TaskStore, report: NodeReport) -> str:
    names = sorted(_name(store, task) for task in report.tasks)
    return f"still stopping: {', '.join(names)}" if names else "every container is gone; removing files"


def _name(store: TaskStore, task: TaskReport) -> str:
    spec = store.spec(task.uid)
    return spec.name if spec else task.uid


def _row(store: TaskStore, task: TaskReport) -> tuple[str, str, str, str, str, str]:
    up = f"{time.time() - task.started_at:.0f}s" if task.started_at else ""
    state = f"{task.state}{' (stopping)' if task.stopping else ''}"
    why = ": ".join(part for part in (task.reason, task.message) if part)
    return _name(store, task), state, str(task.restarts), str(task.pid or ""), up, why


async def _ask(
    paths: Paths, message: dict[str, Any], answer: str, *, look: Callable[[NodeReport], None] = lambda _: None
) -> dict[str, Any]:
    """The answer to `message`. While it takes its time the daemon is asked what there is, for `look` and to show it that we are here."""
    try:
        reader, writer = await asyncio.open_unix_connection(paths.agent_socket)
    except OSError as error:
        raise AgentError("NotRunning", f"no daemon listens on {paths.agent_socket} ({error.strerror}); `dial` starts one") from error
    writer.write(encode(message))
    decoder = Decoder()
    try:
        while True:
            try:
                data = await asyncio.wait_for(reader.read(1 << 18), LOOK_EVERY_S)
            except asyncio.TimeoutError:
                writer.write(encode({"type": "observe"}))
                continue
            if not data:
                raise AgentError("NotRunning", "the daemon ended before it answered")
            for said, _ in decoder.feed(data):
                if said["type"] == answer:
                    return said
                if said["type"] == "report":
                    look(from_wire(NodeReport, said["report"]))
    finally:
        writer.close()
