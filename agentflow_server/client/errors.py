"""What can go wrong with a server, as exceptions that carry its stable codes.

AgentflowClientError
├── NotAuthenticated    401, after the one attempt with a fresh token
├── Forbidden           403
├── NotFound            404: no such thing, or not yours
├── Conflict            409
├── InvalidRequest      any other 4xx
├── RateLimited         429
├── ServerFailed        5xx
├── RunFailed           the agent did not finish its turn
├── LoginFailed         there is no token to be had
├── ServerUnreachable   no answer, or only half of one
├── UnexpectedAnswer    an answer that no agentflow server gives: a redirect, a page of HTML
└── TimedOut            no answer in the time that was given
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from pydantic_core import from_json

from agentflow_server.client.steps import Steps, read
from agentflow_server.errors import AgentflowError
from agentflow_server.models import JsonObject

MAX_ERROR_BYTES = 64 * 1024
_MAX_TEXT = 500


class AgentflowClientError(AgentflowError):
    """`detail` is for people, `code` for programs; `status` and `request_id` are None where no
    server said so. `document` is the whole problem document, `retry_after` is in seconds, and
    `attempts` is how often the server was asked."""

    code = "client_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        if code is not None:
            self.code = code  # type: ignore[misc]  # here it is the server that knows the code
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.document: Mapping[str, Any] = document or {}
        self.attempts = 1


class NotAuthenticated(AgentflowClientError):
    """The server refuses the credential, also a fresh one."""

    code = "not_authenticated"


class Forbidden(AgentflowClientError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotFound(AgentflowClientError):
    """No such thing, or it belongs to somebody else."""

    code = "not_found"


class Conflict(AgentflowClientError):
    """The request is fine, the current state is not: `code` says which."""

    code = "conflict"


class InvalidRequest(AgentflowClientError):
    """The server does not take the request; `document["errors"]` names fields where it can."""

    code = "invalid_request"


class RateLimited(AgentflowClientError):
    """A quota is used up, and waiting did not help or would take too long."""

    code = "rate_limited"


class ServerFailed(AgentflowClientError):
    """The server, or a proxy before it, cannot answer."""

    code = "internal_error"


class RunFailed(AgentflowClientError):
    """The agent did not finish its turn."""

    code = "run_failed"


class LoginFailed(AgentflowClientError):
    """There is no token to be had; `code` is the token endpoint's, such as `invalid_grant`."""

    code = "login_failed"


class ServerUnreachable(AgentflowClientError):
    """There was no answer, or only half of one."""

    code = "unreachable"

    @classmethod
    def after(cls, error: httpx2.RequestError) -> "ServerUnreachable":
        """From what the network said; the request itself is not in the text."""
        url = error.request.url
        why = str(error) if isinstance(error, httpx2.NetworkError) else ""
        shown = f"{type(error).__name__}: {why}" if why else type(error).__name__
        return cls(f"no answer from {url.scheme}://{url.netloc.decode()} ({shown})")


class UnexpectedAnswer(AgentflowClientError):
    """The answer is none of an agentflow server."""

    code = "unexpected_answer"


class TimedOut(AgentflowClientError):
    """There is no answer in the time that was given; a run that was started goes on."""

    code = "timed_out"


_CLASSES: Mapping[int, type[AgentflowClientError]] = {
    401: NotAuthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}


def read_error(response: httpx2.Response, secret: str | None = None) -> Steps[AgentflowClientError]:
    """What an answer that is no success means; a `secret` it repeats is not shown."""
    if 300 <= response.status_code < 400:
        return _redirected(response)
    body = yield from _read_start()
    document = _read_document(body)
    detail = document.get("detail")
    if not isinstance(detail, str):
        kind = response.headers.get("content-type", "nothing").partition(";")[0]
        detail = f"{response.status_code} {response.reason_phrase} (with {kind[:80]})"
    if secret:
        detail = detail.replace(secret, "…")
    return _class_of(response.status_code, document)(
        detail[:_MAX_TEXT],
        code=_find_code(document),
        status=response.status_code,
        request_id=response.headers.get("x-request-id"),
        retry_after=read_retry_after(response),
        document=document,
    )


def read_retry_after(response: httpx2.Response) -> float | None:
    """Seconds, from either form of RFC 9110 section 10.2.3; None for anything else."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    until = _read_date(text)
    if until is None:
        return None
    # By the server's own clock, if it says what that is: ours may be wrong by minutes.
    today = _read_date(response.headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (until - today).total_seconds())


def _read_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _redirected(response: httpx2.Response) -> AgentflowClientError:
    return UnexpectedAnswer(
        f"{response.request.method} {response.request.url.copy_with(query=None)} is redirected; "
        "redirects are not followed, as they would take the credential along: use the final URL",
        code="redirected",
        status=response.status_code,
    )


def _read_start() -> Steps[bytes]:
    """As much of the body as an error needs; the rest is not waited for."""
    body = bytearray()
    while len(body) < MAX_ERROR_BYTES and (chunk := (yield from read())) is not None:
        body += chunk
    return bytes(body)


def _read_document(body: bytes) -> JsonObject:
    try:
        document = from_json(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _class_of(status: int, document: JsonObject) -> type[AgentflowClientError]:
    if status >= 500:
        return RunFailed if "run_id" in document else ServerFailed
    return _CLASSES.get(status, InvalidRequest)


def _find_code(document: JsonObject) -> str:
    code = document.get("code")
    return code[:64] if isinstance(code, str) and code.isprintable() else "http_error"
