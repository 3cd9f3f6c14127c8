"""The one place that knows which error is which status, as RFC 9457 problem documents."""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException as StarletteHTTPException

from agentflow_server.errors import (
    AgentflowError,
    AuthUnavailable,
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    RunFailed,
    StoreUnavailable,
)

log = logging.getLogger(__name__)


class BodyTooLarge(AgentflowError):
    """The body is longer than `limits.max_body_bytes`."""

    code = "body_too_large"


class BodyIncomplete(AgentflowError):
    """The client went away before its body had arrived."""

    code = "body_incomplete"


class BodyTimeout(AgentflowError):
    """The body did not arrive within `limits.body_timeout`."""

    code = "body_timeout"


class UnsupportedMediaType(AgentflowError):
    """The body is not declared to be JSON."""

    code = "unsupported_media_type"


STATUS: Mapping[type[AgentflowError], int] = {
    BodyIncomplete: 400,
    NotAuthenticated: 401,
    NotFound: 404,
    BodyTimeout: 408,
    Conflict: 409,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    InvalidRequest: 422,
    IdempotencyMismatch: 422,
    RunFailed: 500,
    AgentflowError: 500,
    StoreUnavailable: 503,
    AuthUnavailable: 503,
}
"""Error class → status; a class that is not listed has its base's."""

HTTP_CODES: Mapping[int, str] = {
    400: "bad_request",
    401: "not_authenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    429: "rate_limited",
    503: "unavailable",
}

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def problem(
    status: int,
    code: str,
    detail: Any,
    *,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """A problem document; `extra` are its extension members."""
    body = {
        "type": f"urn:agentflow:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **(extra or {}),
    }
    return Response(
        to_json(body), status, headers=dict(headers or {}), media_type="application/problem+json"
    )


def install_error_answers(app: FastAPI) -> None:
    """Every error leaves `app` as a problem document."""
    app.add_exception_handler(AgentflowError, _answer_agentflow_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(StarletteHTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_unexpected)


def status_of(error: AgentflowError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def challenge(*, token_sent: bool) -> str:
    """RFC 6750 section 3: an error code only when a token was sent."""
    return 'Bearer error="invalid_token"' if token_sent else "Bearer"


async def _answer_agentflow_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AgentflowError)  # noqa: S101  # registered for this class only
    match error:
        case NotAuthenticated():
            log.info("refused: %s", error.reason)
            headers = {"WWW-Authenticate": challenge(token_sent=error.token_sent)}
            return problem(401, error.code, str(error), headers=headers)
        case AuthUnavailable():
            log.error("authentication unavailable: %s", error.reason)
            headers = {"Retry-After": str(error.retry_after)}
            return problem(503, error.code, str(error), headers=headers)
        case RunFailed():
            return problem(500, error.run_code, str(error), extra=error.details)
        case StoreUnavailable():
            log.error("store unavailable", exc_info=error)
            detail = "The database cannot be used right now"
            return problem(503, error.code, detail, headers={"Retry-After": "5"})
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("unexpected", exc_info=error)
        return await _answer_unexpected(_, error)
    return problem(status, error.code, str(error))


async def _answer_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this class only
    errors = [_explain(item) for item in error.errors()[:20]]
    return problem(422, "invalid_request", "The request is not valid", extra={"errors": errors})


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101  # registered for this class only
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        names = {name.lower() for name in headers}
        if "www-authenticate" not in names:
            headers["WWW-Authenticate"] = challenge(token_sent="authorization" in _.headers)
    code = HTTP_CODES.get(error.status_code, "http_error")
    if isinstance(error, HTTPException):
        return problem(error.status_code, code, error.detail, headers=headers)
    return problem(error.status_code, code, HTTPStatus(error.status_code).phrase, headers=headers)


async def _answer_unexpected(_: Request, __: Exception) -> Response:
    return problem(500, "internal_error", "Something went wrong on our side")


def _explain(item: Mapping[str, Any]) -> dict[str, Any]:
    """What pydantic found, without the value it found it in."""
    message = "not a known field" if item["type"] == "extra_forbidden" else str(item["msg"])
    return {"field": _place(item["loc"]), "message": message}


def _place(location: Sequence[str | int]) -> str:
    """`body.content.0.type`; a part that is no plain name came from the client and is left out."""
    return ".".join(
        str(part) if isinstance(part, int) or _FIELD.fullmatch(part) else "?" for part in location
    )
