"""The operator's errors, sorted by what the reader can do about them.

MoorageError
├── InvalidSpec              the user changes the manifest: becomes a condition, never retried by itself
├── NodeUnavailable          wait and retry
│   ├── Unreachable              no route, no answer in time: the host may be gone
│   ├── Refused                  the host lives, its sshd does not answer (LoginTooSlow: not in time)
│   ├── NameUnresolved           nobody can tell where the host is; of the host this says nothing
│   ├── OperatorExhausted        this process or its machine has no room for a connection; of the host this says nothing
│   └── AuthenticationFailed     slow back-off: the user changes key, account or host
├── HostKeyMismatch          a person decides (JumpHostKeyMismatch: about the host on the way)
├── HostUnsuitable           the host lacks what the agent needs: a person changes the host
├── AgentError               the agent said no, with a code
├── CredentialsError         a person mends the kubeconfig or the service account
├── NotLeader                another process leads: this one writes nothing
└── ApiError                 the API server said no, or nothing
    ├── ApiUnavailable           wait and retry
    ├── TooManyRequests          wait as long as it says
    ├── Conflict                 read again, decide again (AlreadyExists: somebody was there first)
    ├── NotFound                 the object, or its kind, is not there
    ├── Gone                     list again
    ├── Unauthorized, Forbidden  a person changes credentials, role or policy
    └── Invalid                  the server names the fields in `causes`
Anything else is a bug: logged with its traceback, retried with back-off, counted.
"""

from __future__ import annotations

from typing import NamedTuple


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


class LoginTooSlow(Refused):
    """The host's sshd speaks, and has not let us in within the time limit."""

    reason = "LoginTooSlow"


class NameUnresolved(NodeUnavailable):
    """The host's name leads to no address: it is wrong, or the DNS of whoever asked does not answer."""

    reason = "NameUnresolved"


class OperatorExhausted(NodeUnavailable):
    """No file descriptor, port or memory was left here for a connection."""

    reason = "OperatorExhausted"


class AuthenticationFailed(NodeUnavailable):
    """The host refused our key; every further try counts against our address there."""

    reason = "AuthenticationFailed"


class HostKeyMismatch(MoorageError):
    """The host showed a key other than the pinned ones. Nothing was sent to it."""

    reason = "HostKeyMismatch"

    def __init__(self, message: str, *, seen: str) -> None:
        super().__init__(message)
        self.seen = seen


class JumpHostKeyMismatch(HostKeyMismatch):
    """The jump host did; nothing is known about the host behind it."""

    reason = "JumpHostKeyMismatch"


class HostUnsuitable(MoorageError):
    """The host lacks something the agent cannot do without."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class AgentError(MoorageError):
    """The agent refused or failed; `reason` is its code, `retry_after_s` when another try may help, as far as it said."""

    def __init__(self, message: str, *, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Cause(NamedTuple):
    """One thing the API server found wrong with an object: where, and what."""

    field: str
    message: str


class ApiError(MoorageError):
    """The API server refused a request or could not be asked. `status` is its HTTP code, 0 when there was no answer."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason or type(self).reason
        self.causes = causes


class ApiUnavailable(ApiError):
    """No answer, no answer in time, or an answer of 5xx: wait and retry."""

    reason = "ApiUnavailable"


class TooManyRequests(ApiError):
    """The API server asks for patience; `retry_after_s` is how much."""

    reason = "TooManyRequests"

    def __init__(
        self, message: str, *, status: int = 429, reason: str = "", causes: tuple[Cause, ...] = (), retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message, status=status, reason=reason, causes=causes)
        self.retry_after_s = retry_after_s


class Conflict(ApiError):
    """The object is not the one the writer last saw (version or uid): read it again, decide again."""

    reason = "Conflict"


class AlreadyExists(Conflict):
    """An object of that name is there already; with deterministic names a repeated create means this and no harm."""

    reason = "AlreadyExists"


class NamespaceEnds(Conflict):
    """The namespace is being deleted: nothing new can be made in it, and what is there goes."""

    reason = "NamespaceTerminating"


class NotFound(ApiError):
    """The object, or the whole kind, is not there."""

    reason = "NotFound"


class Gone(ApiError):
    """The asked version is not one the API server can continue from: list again."""

    reason = "Expired"


class Unauthorized(ApiError):
    """The credentials are unknown, expired or wrong: a person or a rotation mends it."""

    reason = "Unauthorized"


class Forbidden(ApiError):
    """Our role does not allow it, or an admission policy refused it: a person changes the one or the other."""

    reason = "Forbidden"


class Invalid(ApiError):
    """The API server found the object wrong; `causes` say which fields."""

    reason = "Invalid"


class NotLeader(MoorageError):
    """Another process leads, or might: this one wrote nothing."""

    reason = "NotLeader"


class CredentialsError(MoorageError):
    """There is no way into the API server: a person mends the kubeconfig, the plugin or the service account."""

    reason = "NoCredentials"
