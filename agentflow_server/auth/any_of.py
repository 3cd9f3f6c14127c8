"""Several methods at once: the first that recognises a credential decides, and nobody after it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.errors import NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import Principal


class AnyOf(Authenticator):
    """Asks `methods` in their order. Each keeps its own `security_scheme`."""

    def __init__(self, methods: Sequence[Authenticator]) -> None:
        self.methods = tuple(methods)
        self.credential_required = all(method.credential_required for method in methods)

    @property
    def security_schemes(self) -> Mapping[str, Mapping[str, Any]]:
        """A method that occurs more than once gets a number: `jwt`, `jwt_2`."""
        found: dict[str, Mapping[str, Any]] = {}
        for method in self.methods:
            for name, scheme in method.security_schemes.items():
                number, key = 2, name
                while key in found:
                    number, key = number + 1, f"{name}_{number}"
                found[key] = scheme
        return found

    def recognises(self, credential: HTTPAuthorizationCredentials) -> bool:
        return any(method.recognises(credential) for method in self.methods)

    async def open(self) -> None:
        await asyncio.gather(*(method.open() for method in self.methods))

    async def close(self) -> None:
        await asyncio.gather(*(method.close() for method in self.methods))

    def problems(self) -> Sequence[str]:
        return [problem for method in self.methods for problem in method.problems()]

    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        method = self.find_method(credential)
        if method is not None:
            return await method.authenticate(request, response, credential)
        if credential is None:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        raise NotAuthenticated(reason="not_recognised")

    def find_method(self, credential: HTTPAuthorizationCredentials | None) -> Authenticator | None:
        """Who decides about the credential; without one, who does without."""
        for method in self.methods:
            if (
                not method.credential_required
                if credential is None
                else method.recognises(credential)
            ):
                return method
        return None
