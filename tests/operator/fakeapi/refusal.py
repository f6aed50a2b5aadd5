"""The API server's ways to say no, as Status objects."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    def __init__(self, code: int, reason: str, message: str, *, causes: list[dict[str, str]] | None = None, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.causes = causes or []
        self.retry_after_s = retry_after_s

    def status(self) -> dict[str, Any]:
        details: dict[str, Any] = {"causes": self.causes} if self.causes else {}
        if self.retry_after_s:
            details["retryAfterSeconds"] = self.retry_after_s
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def not_found(plural: str, name: str) -> Refusal:
    return Refusal(404, "NotFound", f'{plural} "{name}" not found')


def conflict(plural: str, name: str, why: str) -> Refusal:
    return Refusal(409, "Conflict", f'Operation cannot be fulfilled on {plural} "{name}": {why}')


def expired(message: str) -> Refusal:
    return Refusal(410, "Expired", message)


def invalid(kind: str, name: str, *causes: tuple[str, str]) -> Refusal:
    """`causes`: field and message of each thing that is wrong."""
    listed = [{"reason": "FieldValueInvalid", "field": field, "message": message} for field, message in causes]
    text = ", ".join(f"{field}: {message}" for field, message in causes)
    return Refusal(422, "Invalid", f'{kind} "{name}" is invalid: {text}', causes=listed)
