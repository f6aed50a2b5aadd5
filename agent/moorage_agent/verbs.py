"""The verbs but dial. Each imports what it needs when it runs: `plan` and `ps` must not load the daemon."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Callable

from moorage_agent.errors import AgentError
from moorage_agent.paths import Paths


def run(arguments: list[str], *, usage: str) -> int:
    """Do one verb and return the exit code: 64 for a wrong command line, 69 when the daemon or host refuses."""
    parser = argparse.ArgumentParser(prog="moorage-agent", usage=usage.partition("usage: ")[2], add_help=False)
    parser.add_argument("verb", nargs="?")
    parser.add_argument("subject", nargs="?")
    parser.add_argument("-f", dest="follow", action="store_true")
    parser.add_argument("--tail", type=int)
    parser.add_argument("--since", type=float)
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--ready-fd", type=int)
    defaults = Paths()
    for name in ("root", "run", "boot_id_file"):
        parser.add_argument("--" + name.replace("_", "-"), default=getattr(defaults, name))
    given = parser.parse_args(arguments)
    verb = VERBS.get(given.verb or "")
    if verb is None:
        print(usage, file=sys.stderr)
        return 64
    try:
        return verb(Paths(given.root, given.run, given.boot_id_file), given)
    except AgentError as error:
        print(f"moorage-agent {given.verb}: {error.message}", file=sys.stderr)
        return 69


def _dial(paths: Paths, _: argparse.Namespace) -> int:
    from moorage_agent.dial import dial

    return dial(paths)


def _serve(paths: Paths, given: argparse.Namespace) -> int:
    from moorage_agent.serve import serve

    return serve(paths, ready_fd=given.ready_fd)


def _plan(paths: Paths, given: argparse.Namespace) -> int:
    from moorage_agent.planning import plan

    with open(given.subject, "rb") if given.subject not in (None, "-") else os.fdopen(0, "rb") as file:
        for step in plan(paths, json.loads(file.read())):
            print(step.describe())
    return 0


def _report(paths: Paths, _: argparse.Namespace) -> int:
    from moorage_agent.people import observed

    print(json.dumps(observed(paths), indent=2))
    return 0


def _ps(paths: Paths, _: argparse.Namespace) -> int:
    from moorage_agent.people import table

    print(table(paths))
    return 0


def _logs(paths: Paths, given: argparse.Namespace) -> int:
    from moorage_agent.people import print_logs

    if not given.subject:
        raise AgentError("Usage", "name a task: `logs TASK`; `ps` lists them")
    print_logs(paths, given.subject, follow=given.follow, tail=given.tail, since_s=given.since)
    return 0


def _doctor(paths: Paths, _: argparse.Namespace) -> int:
    from moorage_agent.people import diagnosis

    lines, healthy = diagnosis(paths)
    print("\n".join(lines))
    return 0 if healthy else 1


def _uninstall(paths: Paths, given: argparse.Namespace) -> int:
    import asyncio

    from moorage_agent.people import uninstall

    if not given.yes:
        raise AgentError("Usage", "this stops every container and removes everything but the volumes; say --yes")
    asyncio.run(uninstall(paths))
    return 0


VERBS: dict[str, Callable[[Paths, argparse.Namespace], int]] = {
    "dial": _dial,
    "serve": _serve,
    "plan": _plan,
    "report": _report,
    "ps": _ps,
    "logs": _logs,
    "doctor": _doctor,
    "uninstall": _uninstall,
}
