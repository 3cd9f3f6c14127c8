"""Your own authentication: fill in `verify_token`, return whatever your agent should know.

agentflow.json:

    "auth": {"method": "custom", "path": "auth.custom:MyAuthBackend"}

.env, in one line (make a token: `python -c "import secrets; print(secrets.token_urlsafe(32))"`):

    CUSTOM_AUTH_TOKENS='{"<token>": {"id": "alice", "username": "alice",
                                     "email": "alice@example.com", "roles": ["user"]}}'

Every key that `authenticate` returns reaches the agent: `config["user_id"]`, `config["roles"]`, …
"""

import hmac
import json
import os
from typing import Any

from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server import BaseAuth

MIN_TOKEN_LENGTH = 22  # 128 random bits in base64


class MyAuthBackend(BaseAuth):
    """Constructed once, at start-up; `options` in agentflow.json are keyword arguments."""

    def __init__(self, *, variable: str = "CUSTOM_AUTH_TOKENS") -> None:
        """Raises ValueError when the variable holds no usable tokens: the server then stops."""
        self._users = read_users(variable)

    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        """Runs in a worker thread, several at a time. Make it `async` if it awaits something."""
        user = self.verify_token(credential.credentials)
        if user is None:
            raise HTTPException(401, "Invalid authentication credentials")
        return {
            "user_id": user["id"],
            "username": user["username"],
            "email": user["email"],
            "roles": user["roles"],
        }

    def verify_token(self, token: str) -> dict[str, Any] | None:
        """The user who owns the token, or None. Ask your database or your API here."""
        found = None
        for known, user in self._users.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                found = user
        return found


def read_users(variable: str) -> dict[str, dict[str, Any]]:
    """The users by token. Raises ValueError; the message never shows a token."""
    try:
        users = json.loads(os.environ.get(variable, ""))
    except ValueError:
        raise ValueError(f"{variable}: expected a JSON object of users by token") from None
    if not isinstance(users, dict) or not users:
        raise ValueError(f"{variable}: expected a JSON object with at least one user")
    for number, (token, user) in enumerate(users.items(), start=1):
        if len(token) < MIN_TOKEN_LENGTH:
            raise ValueError(
                f"{variable}: token {number} has fewer than {MIN_TOKEN_LENGTH} characters"
            )
        if not isinstance(user, dict) or not {"id", "username", "email", "roles"} <= user.keys():
            raise ValueError(f"{variable}: user {number} needs id, username, email and roles")
    return users
