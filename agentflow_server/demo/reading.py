"""Requests, in the form that Authlib reads them."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from authlib.oauth2.base import invalid_error_characters
from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError, OAuth2Request
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from starlette.requests import Request

MAX_BODY_BYTES = 65_536
_FORM = "application/x-www-form-urlencoded"
_QUOTED = ("redirect_uri", "response_type")
_UNREADABLE = 401


class WebRequest(OAuth2Request):
    """One request; its parameters are those of the body at the token endpoint, else of the URL."""

    def __init__(self, request: Request, issuer: str, fields: Mapping[str, str]) -> None:
        """Raises OAuth2Error."""
        super().__init__(request.method, issuer + request.url.path, headers=request.headers)
        # Authlib quotes these when it refuses them, and fails where OAuth has no place for them.
        if any(invalid_error_characters(fields.get(name, "")) for name in _QUOTED):
            raise InvalidRequestError("A parameter has characters that are not allowed.")
        try:
            extract_basic_authorization(request.headers)
        except ValueError:
            raise InvalidClientError(
                "The Authorization header cannot be read.", None, _UNREADABLE
            ) from None
        self.payload = BasicOAuth2Payload(fields)

    @property
    def form(self) -> Mapping[str, str]:
        fields: Mapping[str, str] = self.payload.data
        return fields


async def read_form(request: Request) -> dict[str, str]:
    """Raises OAuth2Error."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise InvalidRequestError(f"Expected a body with Content-Type: {_FORM}.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise InvalidRequestError("The body is too large.")
    return parse_fields(body)


def parse_fields(encoded: bytes) -> dict[str, str]:
    """Each occurs once, and what is empty counts as omitted. Raises OAuth2Error."""
    try:
        pairs = parse_qsl(encoded.decode(), errors="strict")
    except ValueError:
        raise InvalidRequestError("The parameters are not in UTF-8.") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidRequestError("A parameter occurs more than once.")
    return fields
