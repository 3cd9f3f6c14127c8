"""Requests that may be sent twice: SQL for PostgreSQL. Every function runs inside a transaction."""

from agentflow_server.errors import IdempotencyMismatch
from agentflow_server.models import Idempotency
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.rows import to_text
from agentflow_server.stores.rules import VALID_FOR, Made

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_FIND = """
    SELECT digest, thread_id, run_id FROM idempotency
    WHERE owner = %s AND route = %s AND key = %s AND created_at > %s"""
_REMEMBER = """
    INSERT INTO idempotency (owner, route, key, digest, thread_id, run_id, created_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (owner, route, key) DO UPDATE SET
        digest = excluded.digest, thread_id = excluded.thread_id, run_id = excluded.run_id,
        created_at = excluded.created_at"""
# What another server is deleting at the moment need not be deleted twice.
_PRUNE = """
    DELETE FROM idempotency WHERE (owner, route, key) IN (
        SELECT owner, route, key FROM idempotency WHERE created_at <= %s LIMIT %s
        FOR UPDATE SKIP LOCKED)"""


async def find_made(
    connection: Connection, owner: str, idempotency: Idempotency, now: int
) -> Made | None:
    """What the first request made; others with the same key wait until this one has ended.

    Raises IdempotencyMismatch when the key was used for another request.
    """
    key = (owner, idempotency.route, idempotency.key)
    await connection.execute(_LOCK, (to_text(key),))
    cursor = await connection.execute(_FIND, (*key, now - VALID_FOR))
    row = await cursor.fetchone()
    if row is None:
        return None
    digest, thread_id, run_id = row
    if digest != idempotency.digest:
        raise IdempotencyMismatch("The idempotency key was used for a different request")
    return Made(thread_id, run_id)


async def remember(
    connection: Connection, owner: str, idempotency: Idempotency, made: Made, now: int
) -> None:
    """Every new key also removes a few that are too old, so that they do not pile up."""
    await prune(connection, now, limit=4)
    await connection.execute(
        _REMEMBER,
        (owner, idempotency.route, idempotency.key, idempotency.digest, *made, now),
    )


async def prune(connection: Connection, now: int, *, limit: int | None) -> None:
    await connection.execute(_PRUNE, (now - VALID_FOR, limit))
