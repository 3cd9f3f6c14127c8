"""Reads the credential from a request's headers, and from nowhere else."""

import re

from fastapi.security import HTTPAuthorizationCredentials
from starlette.datastructures import Headers

from agentflow_server.errors import NotAuthenticated

MAX_CREDENTIAL_BYTES = 16_384
API_KEY_HEADER = "x-api-key"
_TOKEN = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # visible ASCII but the comma: never two in one


def read_credential(
    headers: Headers, *, api_key_header: bool = False
) -> HTTPAuthorizationCredentials | None:
    """The credential, None when there is none; from `X-API-Key` its scheme is `ApiKey`.

    Raises NotAuthenticated for anything but exactly one `Authorization: Bearer TOKEN` (RFC 6750
    section 2.1) or, where it is allowed, one `X-API-Key: KEY`.
    """
    values = headers.getlist("authorization")
    keys = headers.getlist(API_KEY_HEADER) if api_key_header else []
    if not values and not keys:
        return None
    if len(values) + len(keys) > 1:
        raise NotAuthenticated(reason="several_credentials")
    if keys:
        return _checked("ApiKey", keys[0])
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer":
        raise NotAuthenticated(NotAuthenticated.MISSING, reason="other_scheme", token_sent=False)
    return _checked(scheme, token.strip(" "))


def _checked(scheme: str, token: str) -> HTTPAuthorizationCredentials:
    if len(token) > MAX_CREDENTIAL_BYTES:
        raise NotAuthenticated(reason="credential_too_long")
    if not _TOKEN.fullmatch(token):
        raise NotAuthenticated(reason="not_one_token")
    return HTTPAuthorizationCredentials.model_construct(scheme=scheme, credentials=token)
