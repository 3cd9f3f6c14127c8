"""Requests that may be sent twice: SQL for SQLite."""

import sqlite3

from agentflow_server.errors import IdempotencyMismatch
from agentflow_server.models import Idempotency
from agentflow_server.stores.rules import VALID_FOR, Made

_FIND = """
    SELECT digest, thread_id, run_id FROM idempotency
    WHERE owner = ? AND route = ? AND key = ? AND created_at > ?"""
_REMEMBER = """
    INSERT OR REPLACE INTO idempotency (owner, route, key, digest, thread_id, run_id, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_PRUNE = """
    DELETE FROM idempotency WHERE (owner, route, key) IN (
        SELECT owner, route, key FROM idempotency WHERE created_at <= ? LIMIT ?)"""


def find_made(
    connection: sqlite3.Connection, owner: str, idempotency: Idempotency, now: int
) -> Made | None:
    """Raises IdempotencyMismatch when the key was used for another request."""
    row = connection.execute(
        _FIND, (owner, idempotency.route, idempotency.key, now - VALID_FOR)
    ).fetchone()
    if row is None:
        return None
    digest, thread_id, run_id = row
    if digest != idempotency.digest:
        raise IdempotencyMismatch("The idempotency key was used for a different request")
    return Made(thread_id, run_id)


def remember(
    connection: sqlite3.Connection, owner: str, idempotency: Idempotency, made: Made, now: int
) -> None:
    """Every new key also removes a few that are too old, so that they do not pile up."""
    prune(connection, now, limit=4)
    connection.execute(
        _REMEMBER,
        (owner, idempotency.route, idempotency.key, idempotency.digest, *made, now),
    )


def prune(connection: sqlite3.Connection, now: int, *, limit: int) -> None:
    connection.execute(_PRUNE, (now - VALID_FOR, limit))
