"""Local users: who may log in with a password of this server's."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator

from agentflow_server.models.frozen import Frozen, JsonObject

MAX_USERNAME = 128

_ALPHABET = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]*[a-z0-9])?")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def normalise_username(text: str) -> str:
    """How a username is stored and compared: `Alice`, `ALICE` and `Ａｌｉｃｅ` are one.

    Few characters are left, so that none looks like another alphabet's; and none looks like the
    id of a user. Raises ValueError.
    """
    # Before anything else: some characters become eighteen.
    if len(text) > MAX_USERNAME:
        raise ValueError(f"a username has at most {MAX_USERNAME} characters")
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not _ALPHABET.fullmatch(name):
        raise ValueError(
            "a username is made of a-z, 0-9 and . _ - @ +, and begins and ends with one of the first"
        )
    if len(name) > MAX_USERNAME:
        raise ValueError(f"a username has at most {MAX_USERNAME} characters")
    if _UUID.fullmatch(name):
        raise ValueError("a username does not look like a UUID: those are the ids of users")
    return name


def is_user_id(text: str) -> bool:
    """By its form."""
    return _UUID.fullmatch(text) is not None


class User(Frozen):
    """A local user as operators see him; `user_id` stays his, whatever else changes.

    `claims` go into the tokens that are made for him. Without `password_changed_at` he has no
    password, and cannot log in before he is given one.
    """

    user_id: str
    username: Annotated[str, AfterValidator(normalise_username)]
    roles: list[str]
    scopes: list[str]
    claims: JsonObject
    created_at: datetime
    disabled_at: datetime | None = None
    password_changed_at: datetime | None = None
    has_totp: bool = False


@dataclass(frozen=True, slots=True)
class UserSecrets:
    """What a login compares with; never shown. `totp_secret` is opaque to the store."""

    password_hash: str | None = field(default=None, repr=False)
    totp_secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UserChange:
    """What is None stays as it is; an empty `totp_secret` takes the second factor away.

    A `password_hash` is that of a new password: `password_changed_at` is now.
    """

    roles: Sequence[str] | None = None
    scopes: Sequence[str] | None = None
    claims: JsonObject | None = None
    disabled: bool | None = None
    password_hash: str | None = field(default=None, repr=False)
    totp_secret: bytes | None = field(default=None, repr=False)
