"""A new user: what operators may say about one, checked."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from uuid_utils import uuid7

from agentflow_server.models import User, normalise_username

MAX_WORDS = 64
MAX_CLAIM_BYTES = 4096

RESERVED_CLAIMS = frozenset(
    [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "client_id",
        "azp",
        "act",
        "may_act",
        "cnf",
        "sid",
        "nonce",
        "acr",
        "amr",
        "auth_time",
        "user_id",
        "username",
        "scope",
        "scp",
        "scopes",
        "permissions",
        "roles",
        "groups",
        "entitlements",
        "authorities",
        "typ",
        "type",
        "token_use",
        "token_type",
        "at_hash",
        "c_hash",
        "s_hash",
        "events",
    ]
)
"""What a token says of itself and its key, of the user and what he may do, and what marks one that
is no access token: none of it can be said otherwise by one of the user's own claims."""

_WORD = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")  # a scope of RFC 6749 section 3.3
_CLAIM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")


def make_user(
    username: str,
    *,
    roles: Sequence[str] = (),
    scopes: Sequence[str] = (),
    claims: Mapping[str, Any] | None = None,
    created_at: datetime,
    has_password: bool,
) -> User:
    """With an id of his own. Raises ValueError, in one line."""
    return User(
        user_id=str(uuid7()),
        username=normalise_username(username),
        roles=check_words(roles, kind="role"),
        scopes=check_words(scopes, kind="scope"),
        claims=check_claims(claims or {}),
        created_at=created_at,
        password_changed_at=created_at if has_password else None,
    )


def check_words(words: Sequence[str], *, kind: str) -> list[str]:
    """Sorted, each once. Raises ValueError."""
    if not all(map(_WORD.fullmatch, words)):
        raise ValueError(
            f'a {kind} is 1 to 128 characters of printable ASCII without spaces, " and \\'
        )
    if len(words) > MAX_WORDS:
        raise ValueError(f"a user has at most {MAX_WORDS} {kind}s")
    return sorted(set(words))


def check_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ValueError."""
    for name in claims:
        if not _CLAIM.fullmatch(name):
            raise ValueError("the name of a claim is made of letters, digits and _ . : / -")
        if name in RESERVED_CLAIMS:
            raise ValueError(f"the claim {name!r} has a meaning of its own in a token")
    if len(to_json(dict(claims))) > MAX_CLAIM_BYTES:
        raise ValueError(f"a user's claims have at most {MAX_CLAIM_BYTES} bytes")
    return dict(claims)
