"""API keys: `Authorization: Bearer <key>`. Only the SHA-256 of a key is stored.

agentflow.json:

    "auth": {"method": "custom", "path": "auth.api_key:APIKeyAuth",
             "options": {"keys_file": "api_keys.json"}}

`python -m auth.api_key alice` prints a new key, once, and the entry for api_keys.json:

    {"<SHA-256>": {"user_id": "alice", "name": "Alice's laptop", "permissions": ["read"]}}

A changed file counts at once, so deleting an entry revokes the key; an entry may have an end:
`"expires": "2027-01-31T00:00:00Z"`. Without `keys_file` the same JSON is read from API_KEYS (.env).
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server import BaseAuth

PROJECT = Path(__file__).resolve().parent.parent
Keys = dict[str, dict[str, Any]]


class APIKeyAuth(BaseAuth):
    """Long random keys for programs."""

    def __init__(self, *, keys_file: str | None = None) -> None:
        """A relative path starts at the project's folder. Raises ValueError."""
        self._file = PROJECT / keys_file if keys_file else None
        if self._file and not self._file.is_file():
            raise ValueError(f"keys_file: there is no file {self._file}")
        # One tuple, replaced as a whole: requests in other threads never see half of a change.
        self._loaded: tuple[object, Keys] = (None, {})
        if self._file is None:
            if not os.environ.get("API_KEYS"):
                raise ValueError("set the option keys_file, or API_KEYS in .env")
            self._loaded = (None, parse_keys(os.environ["API_KEYS"], source="API_KEYS"))
        self.current_keys()

    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        digest = hash_key(credential.credentials)
        found = None
        for known, entry in self.current_keys().items():
            if hmac.compare_digest(known, digest):
                found = entry
        if found is None or has_expired(found):
            raise HTTPException(401, "Invalid API key")
        return {
            "user_id": found["user_id"],
            "name": found["name"],
            "permissions": found["permissions"],
        }

    def current_keys(self) -> Keys:
        """The entries by hash. Raises when the file is unusable: nobody gets in (503)."""
        if self._file is None:
            return self._loaded[1]
        stat = self._file.stat()
        version = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._loaded[0] != version:
            text = self._file.read_text(encoding="utf-8")
            self._loaded = (version, parse_keys(text, source=str(self._file)))
        return self._loaded[1]


def hash_key(key: str) -> str:
    # A fast hash is enough for 256 random bits; for passwords it would not be.
    return hashlib.sha256(key.encode()).hexdigest()


def has_expired(entry: dict[str, Any]) -> bool:
    return "expires" in entry and datetime.fromisoformat(entry["expires"]) <= datetime.now(UTC)


def parse_keys(text: str, *, source: str) -> Keys:
    """Raises ValueError; the message never shows a hash."""
    try:
        keys = dict(json.loads(text))
    except (ValueError, TypeError):
        raise ValueError(f"{source}: expected a JSON object of entries by SHA-256") from None
    for number, (digest, entry) in enumerate(keys.items(), start=1):
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(
                f"{source}: entry {number} is not named by a SHA-256 in lower-case hex"
            )
        match entry:
            case {"user_id": str(user_id), "name": str(), "permissions": list()} if user_id:
                pass
            case _:
                raise ValueError(f"{source}: entry {number} needs user_id, name and permissions")
        try:
            has_expired(entry)
        except (TypeError, ValueError):
            raise ValueError(f"{source}: entry {number}: expires needs a date with zone") from None
    return keys


if __name__ == "__main__":
    user = sys.argv[1] if len(sys.argv) == 2 else sys.exit("usage: python -m auth.api_key USER_ID")
    new_key = "agentflow_" + secrets.token_urlsafe(32)
    new_entry = {"user_id": user, "name": user, "permissions": []}
    sys.stdout.write(f"{new_key}\n{json.dumps({hash_key(new_key): new_entry})}\n")
