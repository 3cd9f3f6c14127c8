"""Who is who: access tokens, of which only the SHA-256 digests are kept."""

import hashlib
from typing import Any

from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server import BaseAuth


class TeamAuth(BaseAuth):
    """`members` (auth.options in agentflow.json) maps digests to what the agent gets to know."""

    def __init__(self, members: dict[str, dict[str, Any]]) -> None:
        self._members = members

    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any]:
        digest = hashlib.sha256(credential.credentials.encode()).hexdigest()
        if digest not in self._members:
            raise HTTPException(401, "Unknown access token")
        return self._members[digest]
