"""Mode none: everybody is the anonymous caller."""

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.interfaces import Authenticator
from agentflow_server.models import ANONYMOUS, Principal


class NoAuth(Authenticator):
    """Ignores the Authorization header, whatever it says."""

    name = "none"

    credential_required = False

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        return Principal(ANONYMOUS)
