"""The one place that knows which error is which status, as RFC 9457 problem documents."""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from pydantic_core import to_json
from starlette.exceptions import HTTPException as StarletteHTTPException

from agentflow_server.errors import (
    AgentflowError,
    AuthUnavailable,
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    RunFailed,
    ServerStopping,
    StoreUnavailable,
    TooManyRequests,
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
    """The body is not declared to be JSON, or a frame is not text."""

    code = "unsupported_media_type"


class SocketTimeout(AgentflowError):
    """A client on a WebSocket says nothing, or does not read what it is told."""

    code = "socket_timeout"


OUR_FAULT = "Something went wrong on our side"
INVALID = "The request is not valid"
STORE_IS_DOWN = "The database cannot be used right now"

STATUS: Mapping[type[AgentflowError], int] = {
    BodyIncomplete: 400,
    NotAuthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    BodyTimeout: 408,
    Conflict: 409,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    InvalidRequest: 422,
    TooManyRequests: 429,
    IdempotencyMismatch: 422,
    RunFailed: 500,
    AgentflowError: 500,
    StoreUnavailable: 503,
    ServerStopping: 503,
    AuthUnavailable: 503,
}
"""Error class → status; a class that is not listed has its base's."""

CLOSE_CODES: Mapping[type[AgentflowError], int] = {
    UnsupportedMediaType: 1003,
    BodyTooLarge: 1009,
    AgentflowError: 1011,
    ServerStopping: 1012,
    StoreUnavailable: 1013,
    AuthUnavailable: 1013,
    NotAuthenticated: 4401,
    Forbidden: 4403,
    NotFound: 4404,
    SocketTimeout: 4408,
    Conflict: 4409,
    InvalidRequest: 4422,
    TooManyRequests: 4429,
}
"""Error class → how it closes a WebSocket; those of our own are 4000 and the status."""

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

PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


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
        "title": title_of(status),
        "status": status,
        "detail": detail,
        "code": code,
        **(extra or {}),
    }
    text = to_json(body, inf_nan_mode="null", fallback=lambda _: None)
    return Response(
        text, status, headers=dict(headers or {}), media_type="application/problem+json"
    )


def install_error_answers(app: FastAPI) -> None:
    """Every error leaves `app` as a problem document."""
    app.add_exception_handler(AgentflowError, _answer_agentflow_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(StarletteHTTPException, _answer_http_exception)


def status_of(error: AgentflowError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def close_code_of(error: AgentflowError | StarletteHTTPException) -> int:
    if isinstance(error, StarletteHTTPException):
        return 4000 + error.status_code
    return next(CLOSE_CODES[kind] for kind in type(error).__mro__ if kind in CLOSE_CODES)


def describe(
    request: HTTPConnection, error: AgentflowError | RequestValidationError
) -> dict[str, Any]:
    """What a problem document would say, for where there is none."""
    if isinstance(error, RequestValidationError):
        return {"code": "invalid_request", "detail": INVALID, "status": 422, **_errors_of(error)}
    status = status_of(error)
    _log(error, status)
    code, detail = _tell(error, status)
    headers, extra = _facts(request, error)
    if "Retry-After" in headers:
        extra = {**(extra or {}), "retry_after": int(headers["Retry-After"])}
    return {"code": code, "detail": detail, "status": status, **(extra or {})}


def challenge(request: HTTPConnection, **parameters: str | None) -> str:
    """`WWW-Authenticate` as RFC 6750 section 3 and RFC 9728 section 5.1 have it."""
    metadata = getattr(request.app.state, "resource_metadata_url", None)
    found = {**parameters, "resource_metadata": metadata}
    fields = [f'{name}="{value}"' for name, value in found.items() if value is not None]
    return " ".join(["Bearer", ", ".join(fields)]).rstrip()


async def _answer_agentflow_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AgentflowError)  # noqa: S101  # registered for this class only
    status = status_of(error)
    _log(error, status)
    headers, extra = _facts(request, error)
    code, detail = _tell(error, status)
    return problem(status, code, detail, headers=headers, extra=extra)


def _tell(error: AgentflowError, status: int) -> tuple[str, str]:
    """Its code and what the client is told."""
    match error:
        case RunFailed():
            return error.run_code, str(error)
        case StoreUnavailable():
            return error.code, STORE_IS_DOWN
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return "internal_error", OUR_FAULT
    return error.code, str(error)


def _log(error: AgentflowError, status: int) -> None:
    match error:
        case NotAuthenticated():
            log.info("refused: %s", error.reason)
        case AuthUnavailable():
            log.error("authentication unavailable: %s", error.reason)
        case RunFailed() | ServerStopping():
            pass  # the traceback is written already, or there is nothing wrong
        case StoreUnavailable():
            log.error("%s: %s", error.code, error)  # the store has written down why
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("%s", error.code, exc_info=error)


def _facts(
    request: HTTPConnection, error: AgentflowError
) -> tuple[dict[str, str], Mapping[str, Any] | None]:
    """The headers and extension members of an answer."""
    match error:
        case NotAuthenticated():
            reason = "invalid_token" if error.token_sent else None
            return {"WWW-Authenticate": challenge(request, error=reason)}, None
        case Forbidden():
            wanted = challenge(request, error="insufficient_scope", scope=error.scope)
            return {"WWW-Authenticate": wanted}, {"scope": error.scope} if error.scope else None
        case TooManyRequests() | AuthUnavailable():
            return {"Retry-After": str(error.retry_after)}, None
        case StoreUnavailable() | ServerStopping():
            return {"Retry-After": "5"}, None
        case RunFailed():
            return {}, error.details
    return {}, None


async def _answer_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this class only
    return problem(422, "invalid_request", INVALID, extra=_errors_of(error))


def _errors_of(error: RequestValidationError) -> dict[str, Any]:
    return {"errors": [_explain(item) for item in error.errors()[:20]]}


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101  # registered for this class only
    status = error.status_code
    if not 400 <= status <= 599:
        log.error("an HTTPException with status %s was raised: only errors can be", status)
        return problem(500, "internal_error", OUR_FAULT)
    headers = {name: value for name, value in (error.headers or {}).items() if _is_plain(value)}
    if status == HTTPStatus.UNAUTHORIZED and "www-authenticate" not in map(str.lower, headers):
        reason = "invalid_token" if "authorization" in request.headers else None
        headers["WWW-Authenticate"] = challenge(request, error=reason)
    code = HTTP_CODES.get(status, "http_error")
    # Only FastAPI's own class is raised by people who mean what they say; Starlette's says it twice.
    detail = error.detail if isinstance(error, HTTPException) else title_of(status)
    return problem(status, code, detail, headers=headers)


def _is_plain(value: object) -> bool:
    """A header value that cannot begin another line."""
    return isinstance(value, str) and value.isprintable() and value.isascii()


def title_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _explain(item: Mapping[str, Any]) -> dict[str, Any]:
    """What pydantic found, without the value it found it in."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "not a known field"
    return {"field": _place(item["loc"]), "message": message}


def _place(location: Sequence[str | int]) -> str:
    """`body.content.0.type`. What is no plain name came from the client, or is pydantic's name for a
    member of a union: both are left out."""
    return ".".join(
        str(part) for part in location if isinstance(part, int) or PLAIN_NAME.fullmatch(part)
    )
