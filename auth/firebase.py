"""Firebase ID tokens, verified with Google's public keys: pip install 'agentflow-server[firebase]'

agentflow.json:

    "auth": {"method": "custom", "path": "auth.firebase:FirebaseAuth",
             "options": {"project_id": "my-project"}}

`project_id` may also be GOOGLE_CLOUD_PROJECT in .env. To refuse revoked tokens and disabled users
too, at the cost of one more question to Google per request, add `"check_revoked": true` and
`"credentials_file": "firebase-credentials.json"` (a service account; never commit it).

For development: FIREBASE_AUTH_EMULATOR_HOST=127.0.0.1:9099. Tokens are then NOT verified.
"""

import logging
import os
import secrets
from pathlib import Path
from typing import Any

import firebase_admin  # type: ignore[import-untyped]  # it has no annotations
from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials
from firebase_admin import auth, credentials, exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError

from agentflow_server import BaseAuth

log = logging.getLogger(__name__)
PROJECT = Path(__file__).resolve().parent.parent


class FirebaseAuth(BaseAuth):
    """Users who signed in with Firebase; while Google cannot be reached, nobody gets in (503)."""

    def __init__(
        self,
        *,
        project_id: str | None = None,
        credentials_file: str | None = None,
        check_revoked: bool = False,
        timeout: float = 4,
    ) -> None:
        """A relative path starts at the project's folder. Raises ValueError."""
        if check_revoked and not credentials_file:
            raise ValueError("check_revoked needs credentials_file")
        # Verifying needs public keys alone; without this, Google's default credentials are sought.
        credential: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
        if credentials_file:
            file = PROJECT / credentials_file
            if not file.is_file():
                raise ValueError(f"credentials_file: there is no file {file}")
            credential = credentials.Certificate(str(file))
        settings = {"httpTimeout": timeout} | ({"projectId": project_id} if project_id else {})
        # An own name leaves the default app to the agent, should it use Firebase itself.
        app = firebase_admin.initialize_app(credential, settings, name=secrets.token_hex(8))
        self._client = auth.Client(app)  # raises ValueError without a project id
        self._check_revoked = check_revoked
        if emulator := os.environ.get("FIREBASE_AUTH_EMULATOR_HOST"):
            log.warning("INSECURE: Firebase tokens are not verified (emulator at %s)", emulator)

    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        claims = self._verify(credential.credentials)
        return {
            "user_id": claims["uid"],
            "email": claims.get("email"),
            "email_verified": claims.get("email_verified"),
            "name": claims.get("name"),
        }

    def _verify(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = self._client.verify_id_token(token, self._check_revoked)
            return claims
        except (auth.InvalidIdTokenError, auth.UserDisabledError, auth.UserNotFoundError) as exc:
            raise HTTPException(401, "Invalid Firebase token") from exc
        except (exceptions.FirebaseError, GoogleAuthError) as exc:
            log.warning("Firebase is unavailable: %s", type(exc).__name__)
            wait = {"Retry-After": "5"}
            raise HTTPException(503, "Firebase is unavailable", headers=wait) from exc
        except Exception as exc:
            # Hostile tokens make the library raise more than its own errors (a list as `kid`, …).
            raise HTTPException(401, "Invalid Firebase token") from exc
