"""The operator's SSH against the sshd of Debian, with a jump host in between: who is said to be silent, and who answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from moorage_operator.errors import JumpHostKeyMismatch, NameUnresolved, Refused, Unreachable
from moorage_operator.fleet import ssh
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.target import Credentials, Target

from tests.fleet import BareHost, HostSpec

pytestmark = pytest.mark.root

Hosts = Callable[..., list[BareHost]]


def target(host: BareHost, *, port: int = 22) -> Target:
    return Target(host.address, host.user, Credentials(host.key_file.read_bytes()), port=port, host_keys=(host.host_key,))


@asynccontextmanager
async def connected(target: Target, *, through: ssh.Connection | None = None) -> AsyncIterator[ssh.Connection]:
    connection = await ssh.connect(target, through=through)
    try:
        yield connection
    finally:
        connection.abort()
        await connection.closed()


async def test_a_command_runs_on_a_host_behind_another(hosts: Hosts) -> None:
    jump, node = hosts(2)
    async with connected(target(jump)) as through, connected(target(node), through=through) as there, there.channel("hostname") as channel:
        assert (await channel.read()).decode().strip() == node.name


async def test_a_dead_host_behind_a_jump_host_is_unreachable(hosts: Hosts) -> None:
    jump, node = hosts(2)
    async with connected(target(jump)) as through:
        node.cut()
        with pytest.raises(Unreachable, match=f"no way to {node.address} through the jump host {jump.address}: No route to host"):
            await ssh.connect(target(node), through=through)


async def test_a_closed_port_behind_a_jump_host_means_the_host_lives(hosts: Hosts) -> None:
    jump, node = hosts(2)
    async with connected(target(jump)) as through:
        with pytest.raises(Refused, match=f"to {node.address}:2222 was refused, says the jump host {jump.address}"):
            await ssh.connect(target(node, port=2222), through=through)


@pytest.mark.parametrize("options", [{"AllowTcpForwarding": "no"}, {"PermitOpen": "192.0.2.1:22"}])
async def test_a_jump_host_that_forbids_to_pass_is_told_apart_and_says_what_to_change(hosts: Hosts, options: dict[str, str]) -> None:
    (jump,), (node,) = hosts(1, HostSpec(sshd=options)), hosts(1)
    async with connected(target(jump)) as through:
        with pytest.raises(Refused, match=f"the jump host {jump.address} opens no connection to .*AllowTcpForwarding and PermitOpen"):
            await ssh.connect(target(node), through=through)


async def test_a_name_the_jump_host_cannot_resolve_is_no_silence_of_the_host(hosts: Hosts) -> None:
    (jump,) = hosts(1)
    async with connected(target(jump)) as through:
        with pytest.raises(NameUnresolved, match=r"does not resolve the name no-such-host.*; correct spec\.ssh\.host, or the DNS of"):
            await ssh.connect(Target("no-such-host.invalid", "root", through.target.credentials), through=through)


async def test_a_jump_connection_that_ended_says_nothing_about_the_host(hosts: Hosts) -> None:
    jump, node = hosts(2)
    async with connected(target(jump)) as through:
        through.abort()
        await through.closed()
        with pytest.raises(Unreachable):
            await ssh.connect(target(node), through=through)


async def test_another_key_of_the_jump_host_is_not_the_hosts(hosts: Hosts) -> None:
    jump, node = hosts(2)
    behind_a_stranger = replace(target(node), jump=replace(target(jump), host_keys=(node.host_key,)))
    with pytest.raises(JumpHostKeyMismatch, match=f"the jump host {jump.address} showed host key") as caught:
        await Governor().open(behind_a_stranger)
    assert caught.value.seen == " ".join(jump.host_key.split()[:2])


async def test_one_session_too_many_is_the_hosts_answer(hosts: Hosts) -> None:
    (host,) = hosts(1, HostSpec(sshd={"MaxSessions": "1"}))
    async with connected(target(host)) as connection, connection.channel("cat"):
        with pytest.raises(Refused, match="MaxSessions"):
            async with connection.channel("true"):
                raise AssertionError("a second session")


async def test_a_frozen_host_is_silent(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LOGIN_TIMEOUT_S", 1)
    (host,) = hosts(1)
    host.freeze()
    with pytest.raises(Unreachable):
        await ssh.connect(target(host))
