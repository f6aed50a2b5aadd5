"""What a document names is there, and what a status names by a word alone stands in a document."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from moorage_operator.fleet.loader import PROGRAM

ROOT = Path(__file__).parents[2]
REASON = re.compile("[A-Z][a-z]+([A-Z]+[a-z]*)*")

# Where the constructor of an error, an end, a problem or a condition takes its reason.
PLACES = {
    **dict.fromkeys(("AgentError", "HostLacks", "ImageError", "InvalidTask", "Interrupted", "Problem", "Refused", "Stuck", "Transient"), 0),
    **dict.fromkeys(("End", "Hindrance", "ImageView", "Unplaceable", "record"), 1),
    "_condition": 2,
}

# Modules that say a reason beside its message, and no word like one but these.
TELLERS = {
    "agent/moorage_agent/task_report.py": {"Failed", "Preparing", "Ready", "Running", "Starting"},
    "agent/moorage_agent/runtime/observed.py": set[str](),
}

# Met in logs and on the command line alone: there the message stands beside it.
UNSEEN = """
AgentSilent AgentStartFailed AlreadyExists AlreadyRunning ApiUnavailable Cancelled Conflict Expired Interrupted InvalidPullSecret InvalidRun
InvalidUid InvalidValueKey NamespaceTerminating NoCredentials NodeUnavailable NotLeader NotRunning NotYours SecretsNotInMemory
StaleRevision Stuck SwarmIdentityDamaged SystemdRefused TasksRemain TooManyRequests UnknownValue Usage
"""


def said() -> set[str]:
    """Every reason in the source of agent and operator."""
    found = set(re.findall(r'fail\("(\w+)"', PROGRAM))
    for package in ("agent/moorage_agent", "operator/moorage_operator"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                found |= set(_reasons(node))
            within = TELLERS.get(str(path.relative_to(ROOT)))
            if within is not None:
                found |= set(_words(tree)) - within
    return found


def _reasons(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        place = PLACES.get(name)
        if place is not None and len(node.args) > place:
            yield from _words(node.args[place])
        for keyword in node.keywords:
            if keyword.arg in ("reason", "code"):
                yield from _words(keyword.value)
    elif isinstance(node, ast.ClassDef):
        for line in node.body:
            if isinstance(line, ast.Assign) and [ast.unparse(target) for target in line.targets] == ["reason"]:
                yield from _words(line.value)


def _words(node: ast.AST) -> Iterator[str]:
    """Those that stand there in full."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and REASON.fullmatch(node.value):
        yield node.value
    if not isinstance(node, ast.JoinedStr):
        for inner in ast.iter_child_nodes(node):
            yield from _words(inner)


def documented() -> set[str]:
    rows = [line for line in (ROOT / "docs" / "reasons.md").read_text().splitlines() if line.startswith("| ")]
    return {word for row in rows for word in row.split("|")[1].replace(",", " ").split() if word != "reason"}


def test_every_reason_is_explained() -> None:
    assert sorted(said() - documented() - set(UNSEEN.split())) == []
    assert sorted(set(UNSEEN.split()) - said()) == []


def test_what_is_explained_is_said_somewhere() -> None:
    source = "".join(path.read_text() for package in ("agent", "operator") for path in (ROOT / package).rglob("*.py"))
    composed = {f"{kind}{what}" for kind in ("Secret", "ConfigMap") for what in ("Missing", "KeyMissing")}
    assert sorted(word for word in documented() - composed if f'"{word}"' not in source) == []


def test_files_that_documents_name_exist() -> None:
    named = re.compile(r"`((?:agent|charts|docs|examples|operator|tests)/[-\w./]*)`")
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    found = [(page.name, path) for page in pages for path in named.findall(page.read_text())]
    assert len(found) > 20
    assert [(page, path) for page, path in found if not (ROOT / path).exists()] == []
