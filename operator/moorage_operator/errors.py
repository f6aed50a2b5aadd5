"""The operator's errors, sorted by what the reader can do about them.

MoorageError
├── InvalidSpec              the user changes the manifest: becomes a condition, never retried by itself
├── NodeUnavailable          wait and retry
│   ├── Unreachable              no route, no answer in time: the host may be gone
│   ├── Refused                  the host lives, its sshd does not answer
│   └── AuthenticationFailed     slow back-off: the user changes key, account or host
├── HostKeyMismatch          a person decides
├── HostUnsuitable           the host lacks what the agent needs: a person changes the host
├── AgentError               the agent said no, with a code
└── ApiError                 the API server said no, or nothing (see its subclasses)
Anything else is a bug: logged with its traceback, retried with back-off, counted.
"""

from __future__ import annotations


class MoorageError(Exception):
    """Any failure this project can explain. `reason` is stable and CamelCase: it becomes a condition's reason."""

    reason = "Error"


class InvalidSpec(MoorageError):
    """The manifest asks for what cannot be; only a changed manifest helps."""

    def __init__(self, message: str, *, reason: str = "InvalidSpec") -> None:
        super().__init__(message)
        self.reason = reason


class NodeUnavailable(MoorageError):
    """The host cannot be worked with right now."""

    reason = "NodeUnavailable"


class Unreachable(NodeUnavailable):
    """No route to the host, or no answer within the time limit."""

    reason = "Unreachable"


class Refused(NodeUnavailable):
    """The host answers, but not with an SSH session: connection refused, reset, or closed before the banner."""

    reason = "ConnectionRefused"


class AuthenticationFailed(NodeUnavailable):
    """The host refused our key; every further try counts against our address there."""

    reason = "AuthenticationFailed"


class HostKeyMismatch(MoorageError):
    """The host showed a key other than the pinned ones. Nothing was sent to it."""

    reason = "HostKeyMismatch"

    def __init__(self, message: str, *, seen: str) -> None:
        super().__init__(message)
        self.seen = seen


class HostUnsuitable(MoorageError):
    """The host lacks something the agent cannot do without."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class AgentError(MoorageError):
    """The agent refused or failed; `reason` is its code."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
