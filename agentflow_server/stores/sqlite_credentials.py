"""API keys and revocations: SQL for SQLite. Every function runs inside a caller's transaction."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Mapping, Sequence

from agentflow_server.errors import IdTaken
from agentflow_server.models import ApiKey, Revocation
from agentflow_server.stores.rows import (
    from_seconds,
    now,
    read_api_key,
    read_revocation,
    to_microseconds,
    to_text,
)

_KEY_COLUMNS = """
    key_id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at"""
_ADD_KEY = f"""
    INSERT INTO api_keys ({_KEY_COLUMNS}, secret_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (key_id) DO NOTHING"""
FIND_KEY = f"SELECT {_KEY_COLUMNS}, secret_hash FROM api_keys WHERE key_id = ?"
ALL_KEYS = f"SELECT {_KEY_COLUMNS} FROM api_keys ORDER BY created_at, rowid"
KEYS_OF_USER = f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE user_id = ? ORDER BY created_at, rowid"
_REVOKE_KEY = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?) WHERE key_id = ?"
_TOUCH_KEY = """
    UPDATE api_keys SET last_used_at = ?
    WHERE key_id = ? AND (last_used_at IS NULL OR last_used_at < ?)"""

# Of two that say the same of one token or user, the stricter half of each stays.
_REVOKE = """
    INSERT INTO revocations (token_id, issuer, user_id, at, expires_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        at = max(at, excluded.at), expires_at = max(expires_at, excluded.expires_at)"""
_PRUNE = "DELETE FROM revocations WHERE expires_at <= ?"
REVOCATIONS = (
    "SELECT token_id, issuer, user_id, at, expires_at FROM revocations WHERE expires_at > ?"
)


def add_api_key(connection: sqlite3.Connection, key: ApiKey, secret_hash: bytes) -> None:
    times = (key.created_at, key.expires_at, key.revoked_at, key.last_used_at)
    row = (
        key.key_id,
        key.user_id,
        key.name,
        to_text(key.scopes),
        *(None if time is None else to_microseconds(time) for time in times),
        secret_hash,
    )
    if not connection.execute(_ADD_KEY, row).rowcount:
        raise IdTaken("The key_id is taken")


def find_api_key(connection: sqlite3.Connection, key_id: str) -> tuple[ApiKey, bytes] | None:
    row = connection.execute(FIND_KEY, (key_id,)).fetchone()
    return None if row is None else (read_api_key(row[:-1]), row[-1])


def list_api_keys(connection: sqlite3.Connection, user_id: str | None = None) -> Sequence[ApiKey]:
    if user_id is None:
        return [read_api_key(row) for row in connection.execute(ALL_KEYS)]
    return [read_api_key(row) for row in connection.execute(KEYS_OF_USER, (user_id,))]


def revoke_api_key(connection: sqlite3.Connection, key_id: str, at: float) -> bool:
    return connection.execute(_REVOKE_KEY, (from_seconds(at), key_id)).rowcount > 0


def touch_api_keys(connection: sqlite3.Connection, used: Mapping[str, float]) -> None:
    times = {key_id: from_seconds(moment) for key_id, moment in used.items()}
    connection.executemany(_TOUCH_KEY, [(time, key_id, time) for key_id, time in times.items()])


def add_revocation(connection: sqlite3.Connection, revocation: Revocation) -> None:
    prune_revocations(connection)
    subject = (revocation.token_id, revocation.issuer, revocation.user_id)
    times = (revocation.at, revocation.expires_at)
    row = (*(part or "" for part in subject), *map(from_seconds, times))
    connection.execute(_REVOKE, row)


def prune_revocations(connection: sqlite3.Connection) -> None:
    connection.execute(_PRUNE, (now(),))


def list_revocations(connection: sqlite3.Connection, now: float) -> Sequence[Revocation]:
    rows = connection.execute(REVOCATIONS, (from_seconds(now),))
    return [read_revocation(row) for row in rows]
