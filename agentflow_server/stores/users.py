"""Local users in any store of ours: SQL, and what its rows mean.

The SQL is SQLite's; `to_postgres` says the same to the other.
"""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from agentflow_server.errors import IdTaken, NotFound
from agentflow_server.models import Page, User, UserChange, UserSecrets, normalise_username
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.rows import Row, now, to_datetime, to_microseconds, to_text

# Not `IS NOT NULL`, which SQLite 3.40 answers wrongly in RETURNING.
_COLUMNS = """
    user_id, username, roles, scopes, claims, created_at, disabled_at, password_changed_at,
    coalesce(length(totp_secret), 0) > 0"""
ADD = """
    INSERT INTO users (user_id, username, roles, scopes, claims, created_at, disabled_at,
        password_changed_at, password_hash, totp_secret)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
FIND_BY_NAME = f"SELECT {_COLUMNS}, password_hash, totp_secret FROM users WHERE username = ?"
GET = f"SELECT {_COLUMNS} FROM users WHERE user_id = ?"
PAGE = f"SELECT {_COLUMNS} FROM users WHERE username > ? ORDER BY username LIMIT ?"
REPLACE_HASH = "UPDATE users SET password_hash = ? WHERE user_id = ? AND password_hash = ?"
ACCEPT_STEP = """
    UPDATE users SET totp_step = ?
    WHERE user_id = ? AND (totp_step IS NULL OR totp_step < ?)"""
REMOVE = "DELETE FROM users WHERE user_id = ?"

_LISTING = "users"


def to_postgres(sql: str) -> str:
    return sql.replace("?", "%s")


def make_row(user: User, secrets: UserSecrets) -> Row:
    times = (user.created_at, user.disabled_at, user.password_changed_at)
    return (
        user.user_id,
        user.username,
        *map(to_text, (user.roles, user.scopes, user.claims)),
        *(None if time is None else to_microseconds(time) for time in times),
        secrets.password_hash,
        secrets.totp_secret,
    )


def read_user(row: Row) -> User:
    user_id, username, roles, scopes, claims, created_at, disabled_at, changed_at, has_totp = row
    return User(
        user_id=user_id,
        username=username,
        roles=from_json(roles),
        scopes=from_json(scopes),
        claims=from_json(claims),
        created_at=to_datetime(created_at),
        disabled_at=None if disabled_at is None else to_datetime(disabled_at),
        password_changed_at=None if changed_at is None else to_datetime(changed_at),
        has_totp=bool(has_totp),
    )


def read_found(row: Row | None) -> tuple[User, UserSecrets] | None:
    if row is None:
        return None
    *user, password_hash, totp_secret = row
    return read_user(user), UserSecrets(password_hash, totp_secret)


def read_one(row: Row | None) -> User:
    """Raises NotFound."""
    if row is None:
        raise no_user()
    return read_user(row)


def find_stored_name(username: str) -> str | None:
    """As it would be stored; None for what cannot be a username."""
    try:
        return normalise_username(username)
    except ValueError:
        return None


def find_place(cursor: str | None) -> str:
    """After which username a page begins. Raises InvalidRequest."""
    return "" if cursor is None else str(decode_cursor(_LISTING, cursor, str)[0])


def read_page(rows: Sequence[Row], limit: int) -> Page[User]:
    """Of rows of which one more was asked for."""
    found = [read_user(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(
        data=found, next_cursor=encode_cursor(_LISTING, found[-1].username) if more else None
    )


def describe_change(user_id: str, change: UserChange) -> tuple[str, Sequence[Any]]:
    """The statement that makes it and returns the user, and its values."""
    moment, parts = now(), dict[str, Any]()
    for column in ("roles", "scopes", "claims"):
        if (value := getattr(change, column)) is not None:
            parts[f"{column} = ?"] = to_text(value)
    if change.disabled is not None:
        parts[
            "disabled_at = coalesce(disabled_at, ?)" if change.disabled else "disabled_at = ?"
        ] = moment if change.disabled else None
    if change.password_hash is not None:
        parts |= {"password_hash = ?": change.password_hash, "password_changed_at = ?": moment}
    if change.totp_secret is not None:
        parts["totp_secret = ?"] = change.totp_secret or None
    if not parts:
        return GET, (user_id,)
    sql = f"UPDATE users SET {', '.join(parts)} WHERE user_id = ? RETURNING {_COLUMNS}"
    return sql, (*parts.values(), user_id)


def taken() -> IdTaken:
    return IdTaken("A username is taken")


def no_user() -> NotFound:
    return NotFound("There is no such user")
