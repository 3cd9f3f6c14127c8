"""A JWT and a code from an authenticator app: pip install 'agentflow-server[mfa]'

The client sends `Authorization: Bearer <jwt>:<code>`. agentflow.json:

    "auth": {"method": "custom", "path": "auth.mfa:MFAAuth",
             "options": {"secrets_file": "mfa_secrets.json"}}

.env: JWT_SECRET_KEY (at least 32 bytes; `agentflow secret` makes one); JWT_ISSUER and JWT_AUDIENCE
if your tokens have them. Tokens are HS256 and need the claims `user_id` and `exp`.

mfa_secrets.json, or else MFA_SECRETS in .env: `{"alice": "<secret>"}`. Make a secret with
`python -c "import pyotp; print(pyotp.random_base32())"`; to show it as a QR code, take the text of
`pyotp.TOTP(secret).provisioning_uri(name="alice")`.

A code belongs to the first JWT that presents it, and that pair works for `pair_seconds`: nobody
types a code per request. Five wrong codes in five minutes stop further codes of that user (429).
One process remembers this, until it ends: serve with one worker.
"""

import hashlib
import hmac
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import pyotp
from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server import BaseAuth

PROJECT = Path(__file__).resolve().parent.parent
MAX_WRONG, WRONG_SECONDS = 5, 300
MAX_REMEMBERED = 100_000


class MFAAuth(BaseAuth):
    """Two factors in one credential."""

    def __init__(self, *, secrets_file: str | None = None, pair_seconds: float = 900) -> None:
        """A relative path starts at the project's folder. Raises ValueError."""
        self._key = os.environ.get("JWT_SECRET_KEY", "")
        if len(self._key.encode()) < 32 or len(set(self._key)) < 8:
            raise ValueError("JWT_SECRET_KEY: 32 random bytes are needed; try `agentflow secret`")
        if not 0 < pair_seconds <= 900:
            raise ValueError("pair_seconds must be above 0 and at most 900")
        self._secrets = read_secrets(secrets_file)
        self._pair_seconds = pair_seconds
        self._lock = threading.Lock()
        self._pairs: dict[bytes, float] = {}  # SHA-256 of jwt:code → when the pair ends
        self._used: dict[str, int] = {}  # user → time step of the last code he used
        self._wrong: dict[str, list[float]] = {}  # user → when wrong codes came

    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        token, _, code = credential.credentials.partition(":")
        if not token or not code or ":" in code:
            raise HTTPException(401, "Invalid token format. Expected: jwt:mfa_code")
        claims = self.verify_jwt(token)
        user_id = claims["user_id"]
        pair = hashlib.sha256(credential.credentials.encode()).digest()
        self._check_code(user_id, self.find_secret(user_id), code, pair)
        return {"user_id": user_id, "username": claims.get("username"), "mfa_verified": True}

    def find_secret(self, user_id: str) -> str | None:
        """The user's TOTP secret in base32; override it to ask a database."""
        return self._secrets.get(user_id)

    def _check_code(self, user_id: str, secret: str | None, code: str, pair: bytes) -> None:
        # Checked and recorded under one lock: parallel guesses cannot slip past the limit.
        with self._lock:
            now = time.time()
            if (ends := self._pairs.get(pair)) is not None:
                if now < ends:
                    return
                raise HTTPException(401, "Invalid MFA code")  # ended, but it was no guess
            wrong = [at for at in self._wrong.get(user_id, []) if at > now - WRONG_SECONDS]
            if len(wrong) >= MAX_WRONG:
                wait = {"Retry-After": str(int(wrong[0] + WRONG_SECONDS - now) + 1)}
                raise HTTPException(429, "Too many wrong MFA codes", headers=wait)
            step = find_step(secret, code, now, after=self._used.get(user_id, -1))
            if step is None:
                remember(self._wrong, user_id, [*wrong, now])
                raise HTTPException(401, "Invalid MFA code")
            remember(self._used, user_id, step)
            remember(self._pairs, pair, now + self._pair_seconds)

    def verify_jwt(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                issuer=os.environ.get("JWT_ISSUER") or None,
                audience=os.environ.get("JWT_AUDIENCE") or None,
                options={"require": ["exp", "user_id"]},
            )
        except jwt.ExpiredSignatureError as exc:
            raise HTTPException(401, "Token has expired") from exc
        except Exception as exc:  # hostile tokens make PyJWT raise more than its own errors
            raise HTTPException(401, "Invalid token") from exc
        if not isinstance(claims["user_id"], str):
            raise HTTPException(401, "Invalid token")
        return claims


def find_step(secret: str | None, code: str, now: float, *, after: int) -> int | None:
    """The time step the code is for: the present one or a neighbour (clocks differ)."""
    if secret is None:
        return None
    totp = pyotp.TOTP(secret)
    present = int(now) // totp.interval
    for step in range(max(present - 1, after + 1), present + 2):
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
            return step
    return None


def remember(memory: dict[Any, Any], key: object, value: object) -> None:
    memory.pop(key, None)
    while len(memory) >= MAX_REMEMBERED:
        del memory[next(iter(memory))]  # the oldest
    memory[key] = value


def read_secrets(secrets_file: str | None) -> dict[str, str]:
    """Raises ValueError; the message never shows a secret."""
    source = secrets_file or "MFA_SECRETS"
    if secrets_file and not (PROJECT / secrets_file).is_file():
        raise ValueError(f"secrets_file: there is no file {PROJECT / secrets_file}")
    text = (PROJECT / source).read_text("utf-8") if secrets_file else os.environ.get(source, "")
    try:
        secrets = dict(json.loads(text))
        enough = min(len(pyotp.TOTP(secret).byte_secret()) for secret in secrets.values()) >= 16
    except (ValueError, TypeError, AttributeError):
        enough = False
    if not enough:
        raise ValueError(f'{source}: expected JSON like {{"alice": "<base32, at least 128 bits>"}}')
    return secrets
