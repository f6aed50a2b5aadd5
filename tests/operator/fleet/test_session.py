from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import asyncssh
import pytest
from moorage_agent.protocol import (
    Container,
    ImageSource,
    ImageSpec,
    NodeReport,
    TaskReport,
    TaskSpec,
    to_wire,
)
from moorage_operator.errors import AgentError, InvalidSpec, NotLeader, Unreachable
from moorage_operator.fleet import conversation, session
from moorage_operator.fleet.fleet import Fleet
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.link import Claim, Link, Wish
from moorage_operator.fleet.session import Session
from moorage_operator.fleet.target import Credentials, Target
from moorage_operator.plan.node_contact import connecting

from tests.operator.fleet.agent import ARCHIVE, FACTS, FIRST_REPORT, Agent
from tests.operator.fleet.sshd import LoopbackSshd, Process


@dataclass
class Desk:
    tasks: tuple[TaskSpec, ...] = ()
    links: list[Link] = field(default_factory=list)
    reports: list[NodeReport] = field(default_factory=list)
    pinned: list[tuple[str, ...]] = field(default_factory=list)
    newer_epochs: list[int] = field(default_factory=list)

    unreadable: str = ""

    def wish(self, uid: str) -> Wish:
        if self.unreadable:
            raise InvalidSpec(self.unreadable, reason="Unreadable")
        return Wish("n1", self.tasks, ())

    def claim(self, uid: str, bound: dict[str, Any] | None) -> Claim:
        return Claim("swarm", 7, adopt=False)

    async def value(self, uid: str, key: str) -> bytes:
        if key == "secret/gone":
            raise InvalidSpec("Secret gone is missing", reason="SecretNotFound")
        return b"value of " + key.encode()

    def changing_keys(self, uid: str) -> list[str]:
        return []

    async def pin(self, uid: str, target: Target, host_keys: tuple[str, ...]) -> None:
        self.pinned.append(host_keys)

    def on_link(self, uid: str, link: Link) -> None:
        self.links.append(link)

    def on_report(self, uid: str, report: NodeReport) -> None:
        self.reports.append(report)

    async def on_newer_epoch(self, uid: str, epoch: int) -> None:
        self.newer_epochs.append(epoch)

    def forget(self, uid: str) -> None: ...


def task(name: str) -> TaskSpec:
    return TaskSpec(name, "default", name, "web", "1", "v1", Container(), ImageSpec("sha256:1", ImageSource("Registry", reference="r")))


@asynccontextmanager
async def connected(agent: Agent, desk: Desk, *, clock: Callable[[], float] = time.time, **target: Any) -> AsyncIterator[Session]:
    async with LoopbackSshd(agent.serve).running() as sshd, session_to(sshd.target(**target), desk, clock=clock) as link:
        yield link


@asynccontextmanager
async def session_to(target: Target, desk: Desk, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Session]:
    link = Session(
        "uid-1",
        target,
        desk=desk,
        governor=Governor(),
        archive=ARCHIVE,
        root="/var/lib/moorage",
        clock=clock,
        random=lambda: 0.0,
    )
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], Any], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (the condition is the world's state, not an event)
            await asyncio.sleep(0.005)


async def test_a_new_host_gets_the_agent_then_the_document() -> None:
    agent, desk = Agent(installed=False), Desk(tasks=(task("a"),))
    async with connected(agent, desk):
        await until(lambda: agent.documents)
    assert agent.received_archive == ARCHIVE.data
    assert agent.hellos == [{"type": "hello", "protocol": 1, "swarmId": "swarm", "nodeUid": "uid-1", "epoch": 7, "adopt": False}]
    assert [t["uid"] for t in agent.documents[0]["tasks"]] == ["a"]
    assert desk.links[0].connected
    assert desk.links[0].facts == FACTS


async def test_revisions_go_on_above_what_the_host_has_seen() -> None:
    agent, desk = Agent(bound={"swarmId": "swarm", "nodeUid": "uid-1", "epoch": 6, "revision": 41}), Desk()
    async with connected(agent, desk):
        await until(lambda: agent.documents)
    assert agent.documents[0]["revision"] == 42


async def test_a_burst_of_changes_becomes_few_documents_and_none_without_change() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk) as link:
        await until(lambda: agent.documents)
        for number in range(50):
            desk.tasks += (task(f"t{number}"),)
            link.push()
            await asyncio.sleep(0)
        await until(lambda: len(agent.documents[-1].get("tasks", [])) == 50)
        sent = len(agent.documents)
        link.push()
        await asyncio.sleep(0.05)
        assert len(agent.documents) == sent < 25


async def test_while_nobody_can_tell_what_a_host_should_run_it_keeps_what_it_has_and_its_link_says_why() -> None:
    agent, desk = Agent(), Desk(unreadable="Task a cannot be read")
    async with connected(agent, desk) as link:
        await until(lambda: desk.links and desk.links[-1].reason)
        assert (link.link.connected, link.link.reason, link.link.message) == (True, "Unreadable", "Task a cannot be read")
        assert not agent.documents
        desk.unreadable = ""
        link.push()
        await until(lambda: agent.documents)
        assert (link.link.connected, link.link.reason, link.link.message) == (True, "", "")
        desk.unreadable, desk.tasks = "Task a cannot be read", (task("a"), task("b"))
        link.push()
        await until(lambda: link.link.reason)
        assert len(agent.documents) == len(agent.hellos) == 1


async def test_reports_reach_the_desk_in_order() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk):
        await until(lambda: agent.documents)
        reports = [NodeReport(False, 7, 1, "h", (TaskReport("a", state),)) for state in ("Preparing", "Running")]
        for report in reports:
            agent.say({"type": "report", "report": to_wire(report)})
        await until(lambda: len(desk.reports) == 3)
    assert desk.reports == [FIRST_REPORT, *reports]


async def test_values_are_sent_when_asked_for_and_a_missing_one_says_why() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk):
        await until(lambda: agent.documents)
        agent.say({"type": "need", "keys": ["secret/ok", "secret/gone"]})
        await until(lambda: len(agent.values) == 2)
    assert agent.values == {"secret/ok": b"value of secret/ok", "secret/gone": "SecretNotFound"}


async def test_a_host_that_asks_without_end_gets_one_answer_at_a_time_and_its_session_ends_at_last() -> None:
    class Vault(Desk):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.asked = asyncio.Event(), Counter[str]()

        async def value(self, uid: str, key: str) -> bytes:
            self.asked[key] += 1
            await self.open.wait()
            return b"v"

    agent, desk = Agent(), Vault()
    async with connected(agent, desk) as link:
        await until(lambda: agent.documents)
        for _ in range(50):
            agent.say({"type": "need", "keys": ["secret/a"] * 50})
        await link.resolve(ImageSource("Registry", reference="good"))  # all of them are heard
        assert desk.asked == {"secret/a": 1}
        desk.open.set()
        await until(lambda: agent.values)
        await link.resolve(ImageSource("Registry", reference="good"))
        assert desk.asked["secret/a"] <= 2
        desk.open.clear()
        agent.say({"type": "need", "keys": [f"secret/{number}" for number in range(9000)]})
        await link.resolve(ImageSource("Registry", reference="good"))
        assert len(desk.asked) <= 1 + conversation.ANSWERS_AT_ONCE
        agent.say({"type": "need", "keys": [f"secret/more-{number}" for number in range(9000)]})
        await until(lambda: not desk.links[-1].connected)
        assert "no document names so many" in desk.links[-1].message


@pytest.mark.parametrize("keys", [None, "secret/a", [1], ["k" * 2000]])
async def test_a_host_that_asks_for_nonsense_is_hung_up_on(keys: Any) -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk):
        await until(lambda: agent.documents)
        agent.say({"type": "need", "keys": keys})
        await until(lambda: not desk.links[-1].connected)
    assert "no keys" in next(link.message for link in desk.links if not link.connected)


async def test_a_value_that_changes_while_it_is_given_is_given_once_more() -> None:
    class Changing(Desk):
        content, reads = b"old", 0

        async def value(self, uid: str, key: str) -> bytes:
            self.reads, read = self.reads + 1, self.content
            await asyncio.sleep(0.05)
            return read

        def changing_keys(self, uid: str) -> list[str]:
            return ["pull/a"]

    agent, desk = Agent(), Changing()
    async with connected(agent, desk) as link:
        await until(lambda: desk.reads)
        desk.content = b"new"
        link.send_again(lambda _: True)
        await until(lambda: agent.values.get("pull/a") == b"new")
        assert desk.reads == 2


async def test_a_report_larger_than_any_host_makes_ends_the_session_before_it_is_read() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk):
        await until(lambda: agent.documents)
        agent.say({"type": "report", "report": {"hash": "h" * (9 << 20)}})
        await until(lambda: not desk.links[-1].connected)
    assert "announced a frame" in next(link.message for link in desk.links if not link.connected)


async def test_resolve_answers_or_tells_the_agents_reason() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk) as link:
        await until(lambda: agent.documents)
        assert (await link.resolve(ImageSource("Registry", reference="good"))).digest == "sha256:1"
        with pytest.raises(AgentError, match="no such tag") as caught:
            await link.resolve(ImageSource("Registry", reference="bad"))
        assert (caught.value.reason, caught.value.retry_after_s) == ("NotFound", 70)


async def test_a_question_ends_when_the_connection_does() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk) as link:
        await until(lambda: agent.documents)
        agent.silent = True
        question = asyncio.create_task(link.resolve(ImageSource("Registry", reference="good")))
        await asyncio.sleep(0.05)
        assert agent.process
        agent.process.close()
        with pytest.raises(Unreachable):
            await question


async def test_a_lost_connection_is_said_and_made_anew() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk):
        await until(lambda: agent.documents)
        assert agent.process
        agent.process.close()
        await until(lambda: len(desk.links) == 3)
    assert [link.connected for link in desk.links] == [True, False, True]


async def test_a_host_that_may_be_back_is_tried_before_its_pause_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "delay_s", lambda *_, **__: 3600.0)
    agent, desk = Agent(), Desk()
    async with connected(agent, desk) as link:
        await until(lambda: agent.documents)
        assert agent.process
        agent.process.close()
        await until(lambda: not desk.links[-1].connected)
        link.hurry()
        await until(lambda: len(agent.hellos) == 2)


async def test_silence_is_told_before_the_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "PING_EVERY_S", 0.02)
    now = 1000.0
    agent, desk = Agent(), Desk()
    async with connected(agent, desk, clock=lambda: now):
        await until(lambda: agent.documents)
        agent.silent = True
        await asyncio.sleep(0.05)
        now += 16
        await until(lambda: desk.links[-1].reason == "Silent")
        assert desk.links[-1].connected
        assert desk.links[-1].last_frame_at == 1000.0
        now += 5
        await until(lambda: any(not link.connected for link in desk.links))


async def test_a_refusal_names_its_reason_and_a_newer_epoch_is_told() -> None:
    agent, desk = Agent(refuse={"code": "StaleEpoch", "message": "epoch 9 commands this host", "epoch": 9}), Desk()
    async with connected(agent, desk):
        await until(lambda: desk.newer_epochs)
        await until(lambda: desk.links[-1].reason == "StaleEpoch")
    assert desk.newer_epochs[0] == 9


async def test_until_the_agent_accepts_us_it_hears_a_hello_and_nothing_else() -> None:
    agent, desk = Agent(undecided=True), Desk(tasks=(task("a"),))
    async with connected(agent, desk) as link:
        await until(lambda: agent.heard)
        with pytest.raises(Unreachable):
            await link.uninstall()
        await asyncio.sleep(0.1)
        assert (agent.heard, link.link.connected) == (["hello"], False)
        assert connecting(link.link), "no attempt has ended yet"
        agent.accept()
        await until(lambda: agent.documents)
        assert link.link.connected
        assert desk.reports == [FIRST_REPORT]


@pytest.mark.parametrize("code", ["OwnedByAnotherSwarm", "DuplicateHost", "ProtocolVersion", "StaleEpoch"])
async def test_a_host_that_refuses_us_was_never_connected_gets_no_document_and_is_tried_less_and_less(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    attempts: list[int] = []

    def at_once(_error: BaseException, attempt: int, *, random: float) -> float:
        attempts.append(attempt)
        return random

    monkeypatch.setattr(session, "delay_s", at_once)
    agent, desk = Agent(refuse={"code": code, "message": "no"}), Desk(tasks=(task("a"),))
    async with connected(agent, desk):
        await until(lambda: len(attempts) >= 3)
    assert attempts[:3] == [1, 2, 3]
    assert set(agent.heard) == {"hello"}
    assert {(link.connected, link.reason) for link in desk.links} == {(False, code)}
    assert desk.links[0].last_frame_at, "whoever refuses was heard"


async def test_a_hello_the_host_cannot_take_says_why() -> None:
    agent, desk = Agent(undecided=True), Desk()
    async with connected(agent, desk):
        await until(lambda: agent.hellos)
        agent.say({"type": "error", "code": "HostError", "message": "hello: the host refused: no space left on device"})
        await until(lambda: desk.links)
    assert (desk.links[0].reason, desk.links[0].message) == ("HostError", "hello: the host refused: no space left on device")


async def test_an_epoch_that_cannot_be_raised_leaves_the_refusal_to_be_seen() -> None:
    class Deposed(Desk):
        async def on_newer_epoch(self, uid: str, epoch: int) -> None:
            raise NotLeader("another process leads")

    agent, desk = Agent(refuse={"code": "StaleEpoch", "message": "epoch 9 commands this host", "epoch": 9}), Deposed()
    async with connected(agent, desk):
        await until(lambda: desk.links)
    assert desk.links[0].reason == "StaleEpoch"


async def test_a_host_that_may_be_adopted_from_now_on_is_tried_at_once() -> None:
    agent, desk = Agent(refuse={"code": "OwnedByAnotherSwarm", "message": "set spec.adopt"}), Desk()
    async with connected(agent, desk) as link:
        await until(lambda: desk.links)
        agent.refuse = None
        link.retarget(replace(link.target, adopt=True))
        await until(lambda: link.link.connected)
        link.retarget(replace(link.target, adopt=False))
        await asyncio.sleep(0.05)
        assert len(agent.hellos) == 2


async def test_a_host_of_two_nodes_is_tried_at_once_when_the_other_goes() -> None:
    agent, desk = Agent(bound={"swarmId": "swarm", "nodeUid": "first"}, refuse={"code": "DuplicateHost", "message": "delete one"}), Desk()
    async with LoopbackSshd(agent.serve).running() as sshd:
        fleet = Fleet(desk=desk, governor=Governor(), archive=ARCHIVE, root="/", random=Random(1))
        fleet.keep("first", sshd.target(host_keys=()))
        fleet.keep("second", sshd.target())
        try:
            await until(lambda: fleet.session("second").link.reason == "DuplicateHost")
            agent.refuse = None
            await fleet.drop("first")
            fleet.heir("first")
            await until(lambda: fleet.session("second").link.connected)
        finally:
            await fleet.drop_all()


class Doorman(LoopbackSshd):
    """Lets nobody in before it is told to."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent.serve)
        self.asked, self.open = asyncio.Event(), asyncio.Event()

    async def decide(self, key: asyncssh.SSHKey) -> bool:
        self.asked.set()
        await self.open.wait()
        return await super().decide(key)


async def test_a_node_corrected_while_its_connection_is_made_leads_to_the_host_it_names_now() -> None:
    wrong, right, desk = Agent(), Agent(), Desk()
    door, there = Doorman(wrong), LoopbackSshd(right.serve)
    async with door.running(), there.running(), session_to(door.target(pinned=False, policy="TrustOnFirstUse"), desk) as link:
        await door.asked.wait()
        link.retarget(there.target(pinned=False, policy="TrustOnFirstUse"))
        door.open.set()
        await until(lambda: right.documents)
    assert not wrong.process
    assert desk.pinned == [(there.public_host_key,)]
    assert [link.message for link in desk.links if not link.connected] == ["the Node names another host, or another way to it"]


async def test_a_node_corrected_while_its_agent_says_nothing_leads_to_the_host_it_names_now() -> None:
    wrong, right, desk = Agent(undecided=True), Agent(), Desk()
    here, there = LoopbackSshd(wrong.serve), LoopbackSshd(right.serve)
    async with here.running(), there.running(), session_to(here.target(), desk) as link:
        await until(lambda: wrong.hellos)
        link.retarget(there.target())
        await until(lambda: right.documents)


async def test_a_rotated_key_is_for_the_next_connection_and_the_one_that_stands_is_kept() -> None:
    agent, desk = Agent(), Desk()
    async with connected(agent, desk) as link:
        await until(lambda: agent.documents)
        another = Credentials(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
        link.retarget(replace(link.target, credentials=another))
        await asyncio.sleep(0.05)
        await link.resolve(ImageSource("Registry", reference="good"))
        assert len(agent.hellos) == 1
        assert agent.process
        agent.process.close()
        await until(lambda: desk.links[-1].reason == "AuthenticationFailed")


def test_only_another_way_makes_a_session_move() -> None:
    first, second = Credentials(b"first"), Credentials(b"second")
    jump = Target("jump", "root", first, host_keys=("a",))
    target = Target("host", "root", first, host_keys=("b",), jump=jump)
    rotated = replace(
        target, credentials=second, host_keys=(), policy="TrustOnFirstUse", jump=replace(jump, credentials=second, host_keys=())
    )
    assert rotated.route == target.route
    for other in (replace(target, host="other"), replace(target, port=23), replace(target, user="ops"), replace(target, jump=None)):
        assert other.route != target.route
    assert replace(target, jump=replace(jump, host="other")).route != target.route


async def test_first_use_pins_before_anything_is_sent() -> None:
    order: list[str] = []
    agent = Agent()

    async def serve(process: Process) -> None:
        order.append("command")
        await agent.serve(process)

    class PinningDesk(Desk):
        async def pin(self, uid: str, target: Target, host_keys: tuple[str, ...]) -> None:
            await asyncio.sleep(0.05)
            order.append("pinned")

    await _once(serve, PinningDesk(), agent, pinned=False, policy="TrustOnFirstUse")
    assert order == ["pinned", "command"]


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason", "remedy"),
    [
        (b"", b"sh: 1: exec: python3: not found", "PythonMissing", "install Python 3.9 or newer"),
        (b"", b"sudo: a password is required", "NotRoot", "allow it without a password"),
        (b"Welcome to this host\n", b"", "NoisyShell", "make its start-up files silent"),
        (b'{"error": "PythonTooOld", "message": "the host has Python 3.6"}\n', b"", "PythonTooOld", ""),
        (b"", b"This account is currently not available.", "NoShell", "give it a login shell that runs commands"),
    ],
)
async def test_an_unsuitable_host_gets_its_reason_and_a_remedy(stdout: bytes, stderr: bytes, reason: str, remedy: str) -> None:
    async def serve(process: Process) -> None:
        process.stderr.write(stderr)
        process.stdout.write(stdout)
        process.exit(1)

    desk = Desk()
    agent = Agent()
    agent.serve = serve  # type: ignore[method-assign]
    async with connected(agent, desk):
        await until(lambda: desk.links)
    assert desk.links[0].reason == reason
    assert remedy in desk.links[0].message


async def _once(serve: Callable[[Process], Awaitable[None]], desk: Desk, agent: Agent, **target: Any) -> None:
    async with LoopbackSshd(serve).running() as sshd, session_to(sshd.target(**target), desk):
        await until(lambda: agent.documents)
