"""From a request's headers to its caller, before anything else of it is read."""

import re

from fastapi import Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from starlette.datastructures import Headers

from agentflow_server.errors import NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import Principal

MAX_CREDENTIAL_BYTES = 16_384
_TOKEN = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # visible ASCII but the comma: never two in one


class Door:
    """Asks the configured authenticator who the caller is."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def admit(self, request: Request) -> Principal:
        """Also keeps what the backend wants to tell the client in `scope["agentflow.headers"]`.

        Raises NotAuthenticated, AuthUnavailable, and a custom backend's HTTPException.
        """
        credential = None
        if self._authenticator.security_scheme is not None:
            credential = read_credential(request.headers)
            if credential is None and self._authenticator.credential_required:
                raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        response = Response()
        own_headers = len(response.raw_headers)
        try:
            return await self._authenticator.authenticate(request, response, credential)
        finally:
            request.scope["agentflow.headers"] = response.raw_headers[own_headers:]


def read_credential(headers: Headers) -> HTTPAuthorizationCredentials | None:
    """The bearer token, None when there is no Authorization header.

    Raises NotAuthenticated for anything but exactly one `Bearer TOKEN` (RFC 6750 section 2.1).
    """
    values = headers.getlist("authorization")
    if not values:
        return None
    if len(values) > 1:
        raise NotAuthenticated(reason="several_authorization_headers")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer":
        raise NotAuthenticated(NotAuthenticated.MISSING, reason="other_scheme", token_sent=False)
    token = token.strip(" ")
    if len(token) > MAX_CREDENTIAL_BYTES:
        raise NotAuthenticated(reason="credential_too_long")
    if not _TOKEN.fullmatch(token):
        raise NotAuthenticated(reason="not_one_token")
    return HTTPAuthorizationCredentials.model_construct(scheme=scheme, credentials=token)
