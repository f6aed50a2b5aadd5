from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket

import asyncssh
import pytest
from moorage_operator.errors import (
    AuthenticationFailed,
    HostKeyMismatch,
    InvalidSpec,
    LoginTooSlow,
    MoorageError,
    NameUnresolved,
    OperatorExhausted,
    Refused,
    Unreachable,
)
from moorage_operator.fleet import descriptors, governor, ssh
from moorage_operator.fleet.governor import Governor
from moorage_operator.fleet.target import Credentials, Target

from tests.operator.fleet.sshd import LoopbackSshd, Process


async def echo(process: Process) -> None:
    process.stdout.write(await process.stdin.read())
    process.exit(0)


async def test_a_pinned_host_runs_a_command() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        connection = await ssh.connect(sshd.target())
        async with connection.channel("anything") as channel:
            await channel.write(b"hello")
            channel.end_input()
            assert await channel.read() == b"hello"
            assert await channel.exit_status() == 0
        connection.abort()


async def test_the_bulk_cipher_is_aes_gcm() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        connection = await ssh.connect(sshd.target())
        assert connection.raw.get_extra_info("send_cipher") == "aes128-gcm@openssh.com"
        connection.abort()


async def test_another_host_key_is_refused_by_name_and_nothing_is_sent() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        other = " ".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[:2])
        with pytest.raises(HostKeyMismatch, match=sshd.host_key.get_fingerprint().replace("+", r"\+")) as caught:
            await ssh.connect(sshd.target(host_keys=(other,)))
        assert caught.value.seen == sshd.public_host_key
        assert sshd.attempts == 0


async def test_a_pin_of_another_key_type_still_names_the_key_that_was_shown() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        rsa = " ".join(asyncssh.generate_private_key("ssh-rsa").export_public_key().decode().split()[:2])
        with pytest.raises(HostKeyMismatch) as caught:
            await ssh.connect(sshd.target(host_keys=(rsa,)))
        assert caught.value.seen == sshd.public_host_key


async def test_without_a_pin_nothing_is_trusted() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        with pytest.raises(HostKeyMismatch):
            await ssh.connect(sshd.target(pinned=False))


async def test_first_use_accepts_and_tells_every_key() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        connection = await ssh.connect(sshd.target(pinned=False, policy="TrustOnFirstUse"))
        assert await connection.host_keys() == (sshd.public_host_key,)
        connection.abort()


async def test_first_use_is_over_once_a_key_is_known() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        other = " ".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[:2])
        with pytest.raises(HostKeyMismatch):
            await ssh.connect(sshd.target(host_keys=(other,), policy="TrustOnFirstUse"))


async def test_a_plain_key_is_no_certificate() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        with pytest.raises(HostKeyMismatch, match="certificate"):
            await ssh.connect(sshd.target(policy="CertificateAuthority"))


async def test_a_certificate_of_the_pinned_authority_is_trusted() -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    sshd = LoopbackSshd(echo)
    certificate = authority.generate_host_certificate(sshd.host_key, "host", principals=["127.0.0.1"])
    sshd.host_key = (sshd.host_key, certificate)  # type: ignore[assignment]
    async with sshd.running():
        pin = " ".join(authority.export_public_key().decode().split()[:2])
        connection = await ssh.connect(sshd.target(pinned=False, host_keys=(pin,), policy="CertificateAuthority"))
        connection.abort()


async def test_a_refused_key_is_offered_once() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        with pytest.raises(AuthenticationFailed, match="authorized_keys"):
            await ssh.connect(sshd.target(key=asyncssh.generate_private_key("ssh-ed25519")))
        assert sshd.attempts == 1


async def test_a_closed_port_means_the_host_lives() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Refused, match="is sshd running there"):
        await ssh.connect(LoopbackSshd(echo).target(port=port))


async def test_a_connection_closed_before_the_banner_means_the_host_lives() -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(slam, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Refused, match="MaxStartups"):
            await ssh.connect(LoopbackSshd(echo).target(port=server.sockets[0].getsockname()[1]))


async def test_a_host_that_says_nothing_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LOGIN_TIMEOUT_S", 0.2)
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unreachable):
            await ssh.connect(LoopbackSshd(echo).target(port=server.sockets[0].getsockname()[1]))
        for writer in held:
            writer.close()


async def test_a_host_that_speaks_and_lets_us_in_too_slowly_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LOGIN_TIMEOUT_S", 1)
    asked = asyncio.Event()

    class Slow(LoopbackSshd):
        async def decide(self, key: asyncssh.SSHKey) -> bool:
            asked.set()
            await asyncio.sleep(60)
            return True

    async with Slow(echo).running() as sshd:
        with pytest.raises(LoginTooSlow, match="did not let us in within 1 s"):
            await ssh.connect(sshd.target())
        assert asked.is_set()


async def test_a_login_may_take_longer_than_the_way_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "CONNECT_TIMEOUT_S", 1)

    class Slow(LoopbackSshd):
        async def decide(self, key: asyncssh.SSHKey) -> bool:
            await asyncio.sleep(1.5)
            return await super().decide(key)

    async with Slow(echo).running() as sshd:
        (await ssh.connect(sshd.target())).abort()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Unreachable),
        (socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"), Unreachable),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), NameUnresolved),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"), NameUnresolved),
        (TimeoutError(), NameUnresolved),
    ],
)
def test_a_name_that_is_no_more_went_with_its_host_and_one_that_nobody_tells_did_not(error: Exception, expected: type[Exception]) -> None:
    assert type(ssh.unresolved("n1.example", error)) is expected


async def test_a_name_that_is_none_is_said_to_be_so() -> None:
    with pytest.raises(NameUnresolved, match=r"does not resolve: .*correct spec.ssh.host"):
        await ssh.connect(LoopbackSshd(echo).target(host=f"{'a' * 64}.example"))


async def test_no_file_descriptor_left_says_nothing_about_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "moorage")  # as the operator does: else it is looked up in a file
    target = LoopbackSshd(echo).target(port=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        with pytest.raises(OperatorExhausted, match="open files"):
            await ssh.connect(target)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_as_high_as_it_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (errno.ECONNREFUSED, errno.EHOSTUNREACH, Refused),
        (errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, Unreachable),
        (errno.EADDRNOTAVAIL, errno.EMFILE, OperatorExhausted),
    ],
)
def test_a_host_of_several_addresses_is_judged_by_what_each_of_them_said(first: int, second: int, expected: type[MoorageError]) -> None:
    with pytest.raises(expected), ssh.translated("host"):
        raise OSError(f"Multiple exceptions: [Errno {first}] Connect call failed ('::1', 22), [Errno {second}] Connect call failed")


async def test_a_key_that_is_none_is_the_users_to_mend() -> None:
    with pytest.raises(InvalidSpec, match="private key cannot be read") as caught:
        await ssh.connect(Target(host="127.0.0.1", user="root", credentials=Credentials(b"nonsense")))
    assert caught.value.reason == "InvalidKey"


async def test_a_certificate_of_another_key_is_the_users_to_mend() -> None:
    key, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    certificate = key.generate_user_certificate(other, "root").export_certificate()
    for unusable in (certificate, b"nonsense"):
        with pytest.raises(InvalidSpec, match="the certificate cannot be used") as caught:
            await ssh.connect(Target(host="127.0.0.1", user="root", credentials=Credentials(key.export_private_key(), unusable)))
        assert caught.value.reason == "InvalidKey"


async def test_a_certificate_lets_us_in() -> None:
    async with LoopbackSshd(echo).running() as sshd:
        key = asyncssh.generate_private_key("ssh-ed25519")
        certificate = sshd.authority.generate_user_certificate(key, "root", principals=["root"]).export_certificate()
        (await ssh.connect(sshd.target(credentials=Credentials(key.export_private_key(), certificate)))).abort()


def test_a_key_never_shows_in_a_repr() -> None:
    assert "canary" not in repr(Target(host="h", user="root", credentials=Credentials(b"canary", b"canary")))


async def test_many_nodes_share_one_connection_to_their_jump_host() -> None:
    opened: list[Target] = []

    async def open_one(target: Target, *, through: object = None) -> ssh.Connection:
        opened.append(target)
        await asyncio.sleep(0.01)
        return _Idle()  # type: ignore[return-value]

    jump = Target(host="jump", user="root", credentials=Credentials(b"k"))
    one = Governor(open_one)
    nodes = [Target(host=f"n{number}", user="root", credentials=Credentials(b"k"), jump=jump) for number in range(20)]
    await asyncio.gather(*(one.open(node) for node in nodes))
    assert opened.count(jump) == 1
    assert len(opened) == 21


async def test_handshakes_are_bounded_per_jump_host_and_in_all() -> None:
    most: dict[str, int] = {"now": 0, "most": 0}

    async def open_one(target: Target, *, through: object = None) -> ssh.Connection:
        most["now"] += 1
        most["most"] = max(most["most"], most["now"])
        await asyncio.sleep(0.01)
        most["now"] -= 1
        return _Idle()  # type: ignore[return-value]

    jump = Target(host="jump", user="root", credentials=Credentials(b"k"))
    one = Governor(open_one)
    await asyncio.gather(*(one.open(Target(host=f"n{n}", user="root", credentials=Credentials(b"k"), jump=jump)) for n in range(40)))
    assert most["most"] <= 8
    most["most"] = 0
    await asyncio.gather(*(one.open(Target(host=f"n{n}", user="root", credentials=Credentials(b"k"))) for n in range(80)))
    assert most["most"] <= 30


async def test_a_failing_jump_host_fails_its_nodes_and_is_tried_anew() -> None:
    tries = 0

    async def open_one(target: Target, *, through: object = None) -> ssh.Connection:
        nonlocal tries
        if target.host == "jump":
            tries += 1
            raise Refused("closed")
        raise AssertionError("a node was opened without its jump host")

    jump = Target(host="jump", user="root", credentials=Credentials(b"k"))
    one = Governor(open_one)
    node = Target(host="n", user="root", credentials=Credentials(b"k"), jump=jump)
    for _ in range(2):
        with pytest.raises(MoorageError):
            await one.open(node)
    assert tries == 2


async def test_a_jump_host_nobody_goes_through_any_more_is_left_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governor, "IDLE_S", 0.05)
    opened: dict[str, list[_Idle]] = {"jump": [], "n": []}

    async def open_one(target: Target, *, through: object = None) -> ssh.Connection:
        opened[target.host].append(one := _Idle())
        return one  # type: ignore[return-value]

    one = Governor(open_one)
    old, new = (Target(host="jump", user="root", credentials=Credentials(key)) for key in (b"old", b"new"))
    first, second = [await one.open(Target(host="n", user="root", credentials=Credentials(b"k"), jump=old)) for _ in range(2)]
    await one.open(Target(host="n", user="root", credentials=Credentials(b"k"), jump=new))
    first.abort()
    await asyncio.sleep(0.2)
    assert [jump.gone.is_set() for jump in opened["jump"]] == [False, False]
    second.abort()
    async with asyncio.timeout(10):
        await opened["jump"][0].gone.wait()
    assert [jump.gone.is_set() for jump in opened["jump"]] == [True, False]
    await one.open(Target(host="n", user="root", credentials=Credentials(b"k"), jump=old))
    assert len(opened["jump"]) == 3


class _Idle:
    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def closed(self) -> None:
        await self.gone.wait()

    def abort(self) -> None:
        self.gone.set()
