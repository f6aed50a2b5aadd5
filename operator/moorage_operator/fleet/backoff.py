"""How long to wait before the next attempt to reach a host. Pure: attempts and randomness come in."""

from __future__ import annotations

from typing import Final

from moorage_operator.errors import AgentError, AuthenticationFailed, HostKeyMismatch, HostUnsuitable, InvalidSpec

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
# OpenSSH 9.8 and newer bans an address for 5 s per failed login, doubling up to 10 min (PerSourcePenalties); all nodes share our address.
BLOCKED_FIRST_S: Final = 30.0
BLOCKED_LONGEST_S: Final = 600.0
# The agent's refusals that stay until a person changes a Node, a host or a version; an epoch is raised within a second.
_REFUSALS: Final = frozenset(("DuplicateHost", "OwnedByAnotherSwarm", "ProtocolVersion"))


def delay_s(error: BaseException, attempt: int, *, random: float) -> float:
    """Seconds before attempt number `attempt + 1`; `random` in [0, 1) spreads nodes that failed together.

    What only a person can mend is tried slowly: every failed login counts against this address at the host, which may be somebody else's.
    """
    refused = isinstance(error, AgentError) and error.reason in _REFUSALS
    if refused or isinstance(error, AuthenticationFailed | HostKeyMismatch | HostUnsuitable | InvalidSpec):
        return _doubling(BLOCKED_FIRST_S, BLOCKED_LONGEST_S, attempt) * (1 + 0.2 * random)
    return _doubling(FIRST_S, LONGEST_S, attempt) * (0.5 + random / 2)


def _doubling(first: float, longest: float, attempt: int) -> float:
    return min(longest, first * 2.0 ** min(attempt - 1, 16))
