"""What can go wrong on a node, sorted by what the reader can do about it. `code` is stable and CamelCase: it becomes a status reason."""

from __future__ import annotations


class AgentError(Exception):
    """Any refusal or failure the agent can explain; anything else is a bug and is logged with its traceback."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        return (self.__class__, (self.code, self.message))


class InvalidTask(AgentError):
    """The task asks for something that cannot be: its author changes it."""


class HostLacks(AgentError):
    """The host cannot do what the task needs: another host, or a change of this one."""


class Refused(AgentError):
    """The operator has no say here, or its word is old: a person decides, or the operator reads what is new."""


class Interrupted(AgentError):
    """The daemon stops or the work was no longer wanted; whoever starts next begins it again."""


class StartFailed(AgentError):
    """The container did not reach its program. exit_code: 127 not found, 126 not executable, 125 anything before that."""

    def __init__(self, exit_code: int, step: str, errno: int | None, message: str) -> None:
        super().__init__({127: "CommandNotFound", 126: "CommandNotExecutable"}.get(exit_code, "StartFailed"), message)
        self.exit_code = exit_code
        self.step = step
        self.errno = errno

    def __reduce__(self) -> tuple[object, ...]:
        return (self.__class__, (self.exit_code, self.step, self.errno, self.message))


class ImageError(AgentError):
    """An image could not be had. retry_after_s: when another try may help; None: only a change helps."""

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return (self.__class__, (self.code, self.message, self.retry_after_s))
