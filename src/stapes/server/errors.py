"""Errors of the HTTP API: OpenAI's error object, with the status that OpenAI uses."""

from __future__ import annotations

from typing import Any, Final

from stapes.errors import (
    AudioError,
    AudioTooLongError,
    DeadlineError,
    ModelNotFoundError,
    OptionError,
    StapesError,
)
from stapes.server.media.frames import MediaUnavailableError

#: what a client is told of a fault of ours; the cause is in the log
_OUR_FAULT = "The server failed on this request. The log has the cause, under the request id of this answer."


#: of a message
_LONGEST: Final = 600


class ApiError(Exception):
    """A request that is refused, or that failed: what the client gets.

    status: of HTTP.   param: the field that is wrong.   code: OpenAI's, where it has one.
    allowed: the methods that a path has, for 405.
    retry_after_s: when to try again, for 429 and 503. OpenAI's clients do not retry above 120 s.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        retry_after_s: int | None = None,
        allowed: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."
        self.param = param
        self.code = code
        self.kind = kind or _kind_of(status)
        self.retry_after_s = retry_after_s
        self.allowed = allowed

    def to_dict(self) -> dict[str, Any]:
        """Return OpenAI's error object; all four keys are required, and `param` and `code` may be None."""
        values = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": values}


def _kind_of(status: int) -> str:
    """Return OpenAI's `type` of an error with this status."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")


def unknown_parameter(name: str, hint: str = "") -> ApiError:
    """Return the error for a field that no endpoint of this kind has."""
    message = f"Unknown parameter: '{name}'." + (f" {hint}" if hint else "")
    return ApiError(400, message, param=name, code="unknown_parameter")


def invalid_value(name: str, message: str) -> ApiError:
    """Return the error for a field whose value cannot be."""
    return ApiError(400, message, param=name, code="invalid_value")


#: errors about input -> the field that was wrong, and OpenAI's code
_OF_INPUT: tuple[tuple[type[StapesError], str | None, str], ...] = (
    (AudioTooLongError, "file", "audio_too_long"),
    (AudioError, "file", "invalid_audio"),
    (OptionError, None, "invalid_value"),
    (ModelNotFoundError, "model", "model_not_found"),
    (DeadlineError, "deadline_s", "deadline_passed"),
)


def api_error_of(error: BaseException) -> ApiError:
    """Return what a client is told of an error: errors about its input as they are, all others as a fault of ours."""
    if isinstance(error, ApiError):
        return error
    for kind, param, code in _OF_INPUT:
        if isinstance(error, kind):
            return ApiError(kind.http_status, str(error), param=param, code=code)
    if isinstance(error, MediaUnavailableError):
        return ApiError(503, "Audio cannot be decoded at present.", code="media_unavailable", retry_after_s=5)
    if isinstance(error, StapesError) and error.http_status < 500:  # others may name files of this machine
        return ApiError(error.http_status, str(error))
    return ApiError(500, _OUR_FAULT)
