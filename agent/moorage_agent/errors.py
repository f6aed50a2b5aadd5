"""What can go wrong on a node, sorted by what the reader can do about it. `code` is stable and CamelCase: it becomes a status reason."""

from __future__ import annotations

MESSAGE_CHARACTERS = 2048


def readable(text: str) -> str:
    """`text` as a message may be that people read and sessions carry: escaped where it is no plain text, and not endless.

    Parts of it come from images, whose authors may mean harm.
    """
    if len(text) <= MESSAGE_CHARACTERS and text.isprintable():
        return text
    plain = "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text[: MESSAGE_CHARACTERS + 1])
    return plain if len(plain) <= MESSAGE_CHARACTERS else plain[: MESSAGE_CHARACTERS - 1] + "…"


class AgentError(Exception):
    """Any refusal or failure the agent can explain; anything else is a bug and is logged with its traceback."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = readable(message)
        super().__init__(self.message)

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
