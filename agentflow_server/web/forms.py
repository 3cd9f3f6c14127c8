"""Reads what the token server is sent: forms, queries, and the login of a client."""

import base64
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import Request

from agentflow_server.token_server import ClientLogin, OAuthError
from agentflow_server.web.secured import read_body

MAX_FORM_BYTES = 16_384
"""Room for a token of the greatest length that is accepted anywhere, and the rest."""
MAX_FIELDS = 32
_FORM = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> dict[str, str]:
    """The fields that have a value, each of which occurs once: what is empty counts as omitted.

    Raises OAuthError, and what `read_body` raises.
    """
    state = request.app.state
    # Before the body, as a file would arrive for a while only to be refused.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise invalid_request(f"Expected a body with Content-Type: {_FORM}")
    limit = min(MAX_FORM_BYTES, state.limits.max_body_bytes)
    return parse_fields(
        await read_body(request, limit=limit, timeout=state.limits.body_timeout), "body"
    )


def read_query(request: Request) -> dict[str, str]:
    """As `read_form`, of the URL."""
    return parse_fields(request.scope["query_string"], "query")


def parse_fields(encoded: bytes, place: str) -> dict[str, str]:
    """Raises OAuthError."""
    try:
        pairs = parse_qsl(
            encoded.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise invalid_request(
            f"The {place} is not a form in UTF-8, or has too many fields"
        ) from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise invalid_request(f"A parameter of the {place} occurs more than once")
    return {name: value for name, value in fields.items() if value}


def read_client(request: Request, form: Mapping[str, str]) -> ClientLogin | None:
    """RFC 6749 2.3.1: from the header or the form, never both. None: no client is named.

    Raises OAuthError.
    """
    values = request.headers.getlist("authorization")
    named, secret = form.get("client_id"), form.get("client_secret")
    if len(values) > 1 or (values and secret is not None):
        raise invalid_request("The client authenticates more than once")
    login = _read_basic(values[0]) if values else None
    if login is None:
        if secret is not None and named is None:
            raise invalid_request("There is a client_secret without a client_id")
        return None if named is None else ClientLogin(named, secret)
    if named not in {None, login.client_id}:
        raise invalid_request("Two clients are named")
    return login


def _read_basic(value: str) -> ClientLogin | None:
    """Swagger's dialog sends the header also when neither of its fields is filled in."""
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        raise _not_basic()
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        login = ClientLogin(_decode(client_id), _decode(secret) or None)
    except ValueError:
        raise _not_basic() from None
    if not colon or (login.secret is not None and not login.client_id):
        raise _not_basic()
    return login if login.client_id else None


def _decode(part: bytes) -> str:
    """Both are encoded as in a form before they are put together."""
    return unquote_to_bytes(part.replace(b"+", b" ")).decode()


def _not_basic() -> OAuthError:
    text = "Expected Authorization: Basic"
    return OAuthError("invalid_client", text, reason="other_scheme", status=HTTPStatus.UNAUTHORIZED)


def invalid_request(description: str) -> OAuthError:
    return OAuthError("invalid_request", description)
