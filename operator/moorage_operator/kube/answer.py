"""What the API server's answer means. Pure: status code, headers and body in, an error of ours out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from moorage_operator.errors import (
    AlreadyExists,
    ApiError,
    ApiUnavailable,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NamespaceEnds,
    NotFound,
    TooManyRequests,
    Unauthorized,
)

BY_CODE: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: TooManyRequests,
}
TEXT_KEPT = 300


def error_of(action: str, code: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error an HTTP answer of 400 and above stands for. `action` says what was tried, on what."""
    return status_error(action, _status_object(code, body), retry_after=headers.get("Retry-After", ""))


def status_error(action: str, status: Mapping[str, Any], *, retry_after: str = "") -> ApiError:
    """The error a Status object stands for; a watch sends these inside its stream."""
    code, reason = int(status.get("code") or 0), str(status.get("reason") or "")
    details = status.get("details") or {}
    causes = tuple(Cause(str(cause.get("field") or ""), str(cause.get("message") or "")) for cause in details.get("causes") or ())
    message = f"cannot {action}: {status.get('message') or f'the API server answered {code}'}"
    kind = _kind(code, reason, details)
    if kind is TooManyRequests:
        seconds = retry_after or details.get("retryAfterSeconds")
        return TooManyRequests(message, status=code, reason=reason, causes=causes, retry_after_s=_seconds(seconds) or 1.0)
    return kind(message, status=code, reason=reason, causes=causes)


def retry_after_s(code: int, headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait before the same request is sent again; None when it does not ask.

    429 and 503 with Retry-After mean that the request was not carried out, so even a create may be repeated.
    """
    if code not in (429, 503):
        return None
    return _seconds(headers.get("Retry-After")) or (1.0 if code == 429 else None)


def _kind(code: int, reason: str, details: Mapping[str, Any]) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    if any(cause.get("reason") == "NamespaceTerminating" for cause in details.get("causes") or ()):
        return NamespaceEnds
    # A version from the future (the store was restored) is a 504; like one from too far back, only a new list helps.
    if any(cause.get("reason") == "ResourceVersionTooLarge" for cause in details.get("causes") or ()):
        return Gone
    if code in BY_CODE:
        return BY_CODE[code]
    return ApiUnavailable if code >= 500 or code == 0 else ApiError


def _status_object(code: int, body: bytes) -> dict[str, Any]:
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        # Not the API server's words: a proxy's page, or an overloaded server's plain text.
        return {"code": code, "message": f"{code}: {body[:TEXT_KEPT].decode(errors='replace').strip()}"}
    return {**status, "code": code}


def _seconds(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None
