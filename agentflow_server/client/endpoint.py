"""What is asked of an OAuth 2.0 token endpoint, and what it answers (RFC 6749)."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

import httpx2
from pydantic_core import from_json

from agentflow_server.client.errors import LoginFailed, ServerUnreachable
from agentflow_server.client.steps import Steps, read, send
from agentflow_server.client.tokens import Token
from agentflow_server.models import JsonObject

ClientAuth = Literal["client_secret_basic", "client_secret_post"]

MAX_BYTES = 256 * 1024
TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEndpoint:
    """Where tokens come from, and who asks."""

    url: str
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_auth: ClientAuth = "client_secret_basic"
    scope: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)

    def grant(self, source: str, form: Mapping[str, str]) -> Steps[Token]:
        """A new token. Never asks twice: a refresh token that is sent again looks stolen.

        Raises LoginFailed, with the code `unreachable` if there is no answer.
        """
        try:
            response = yield from send(self._request(form))
            body = yield from _read(MAX_BYTES)
        except httpx2.RequestError as error:
            failure = ServerUnreachable.after(error)
            raise LoginFailed(failure.detail, code=failure.code) from error
        document = _parse(response, body)
        if not response.is_success:
            raise self._refusal(response, document, form)
        return _token(document, source)

    def _request(self, form: Mapping[str, str]) -> httpx2.Request:
        fields = {**form, **self.extra}
        if self.scope is not None and form["grant_type"] != "refresh_token":
            fields["scope"] = self.scope
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        if self.client_id is not None and self.client_secret is not None:
            if self.client_auth == "client_secret_basic":
                headers["Authorization"] = _basic(self.client_id, self.client_secret)
            else:
                fields |= {"client_id": self.client_id, "client_secret": self.client_secret}
        elif self.client_id is not None:
            fields["client_id"] = self.client_id
        return httpx2.Request(
            "POST",
            self.url,
            content=urlencode(fields).encode(),
            headers=headers,
            extensions={"timeout": httpx2.Timeout(TIMEOUT).as_dict()},
        )

    def _refusal(
        self, response: httpx2.Response, document: JsonObject, form: Mapping[str, str]
    ) -> LoginFailed:
        # A server without this endpoint says so as its problems are said (RFC 9457).
        code, text = (
            document.get("error"),
            document.get("error_description", document.get("detail")),
        )
        shown = (
            ": ".join(part for part in (code, text) if isinstance(part, str)) or "no reason given"
        )
        for secret in (self.client_secret, form.get("password"), form.get("refresh_token")):
            shown = shown.replace(secret, "…") if secret else shown
        return LoginFailed(
            f"{_place(self.url)} gives no token ({response.status_code}): {shown[:300]}",
            code=code[:64] if isinstance(code, str) else None,
            status=response.status_code,
            document=document,
        )


def _basic(client_id: str, client_secret: str) -> str:
    """Both are form-encoded first (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _read(limit: int) -> Steps[bytes]:
    body = bytearray()
    while len(body) <= limit and (chunk := (yield from read())) is not None:
        body += chunk
    return bytes(body)


def _parse(response: httpx2.Response, body: bytes) -> JsonObject:
    """Raises LoginFailed."""
    try:
        document: Any = from_json(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and len(body) <= MAX_BYTES:
        return document
    kind = response.headers.get("content-type", "nothing").partition(";")[0][:80]
    raise LoginFailed(
        f"{_place(response.request.url)} is no token endpoint: {response.status_code} with {kind}",
        code="unexpected_answer",
        status=response.status_code,
    )


def _token(document: JsonObject, source: str) -> Token:
    """Raises LoginFailed."""
    match document:
        case {"access_token": str(text), "token_type": str(kind)} if kind.lower() == "bearer":
            refresh_token, expires_in = document.get("refresh_token"), document.get("expires_in")
            return Token.issued_now(
                text,
                expires_in=_seconds(expires_in),
                refresh_token=refresh_token if isinstance(refresh_token, str) else None,
                source=source,
            )
    raise LoginFailed("the token endpoint's answer has no bearer token", code="unexpected_answer")


def _seconds(value: Any) -> float | None:
    """Some servers send it as text."""
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        return None


def _place(url: httpx2.URL | str) -> str:
    return str(httpx2.URL(url).copy_with(query=None))
