"""API keys and revocations: SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Mapping, Sequence

from agentflow_server.errors import IdTaken
from agentflow_server.models import ApiKey, Revocation
from agentflow_server.stores.postgres_connections import Connection
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
    INSERT INTO api_keys ({_KEY_COLUMNS}, secret_hash)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (key_id) DO NOTHING"""
FIND_KEY = f"SELECT {_KEY_COLUMNS}, secret_hash FROM api_keys WHERE key_id = %s"
ALL_KEYS = f"SELECT {_KEY_COLUMNS} FROM api_keys ORDER BY created_at, position"
KEYS_OF_USER = f"""
    SELECT {_KEY_COLUMNS} FROM api_keys WHERE user_id = %s ORDER BY created_at, position"""
_REVOKE_KEY = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, %s) WHERE key_id = %s"
# Locked in the order of their ids: two servers that touch the same keys do not wait in a circle.
_TOUCH_KEYS = """
    WITH used AS (
        SELECT key_id, moment FROM api_keys
        JOIN unnest(%s::text[], %s::bigint[]) AS used (id, moment) ON id = key_id
        ORDER BY key_id FOR NO KEY UPDATE OF api_keys
    )
    UPDATE api_keys SET last_used_at = moment FROM used
    WHERE api_keys.key_id = used.key_id AND (last_used_at IS NULL OR last_used_at < moment)"""

# Of two that say the same of one token or user, the stricter half of each stays.
_REVOKE = """
    INSERT INTO revocations (token_id, issuer, user_id, at, expires_at)
    VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (token_id, issuer, user_id) DO UPDATE SET
        at = greatest(revocations.at, excluded.at),
        expires_at = greatest(revocations.expires_at, excluded.expires_at)"""
_PRUNE = """
    DELETE FROM revocations WHERE (token_id, issuer, user_id) IN (
        SELECT token_id, issuer, user_id FROM revocations WHERE expires_at <= %s
        FOR UPDATE SKIP LOCKED)"""
REVOCATIONS = """
    SELECT token_id, issuer, user_id, at, expires_at FROM revocations WHERE expires_at > %s"""


async def add_api_key(connection: Connection, key: ApiKey, secret_hash: bytes) -> None:
    times = (key.created_at, key.expires_at, key.revoked_at, key.last_used_at)
    row = (
        key.key_id,
        key.user_id,
        key.name,
        to_text(key.scopes),
        *(None if time is None else to_microseconds(time) for time in times),
        secret_hash,
    )
    added = await connection.execute(_ADD_KEY, row)
    if not added.rowcount:
        raise IdTaken("The key_id is taken")


async def find_api_key(connection: Connection, key_id: str) -> tuple[ApiKey, bytes] | None:
    if "\0" in key_id:  # which PostgreSQL refuses to look for
        return None
    row = await (await connection.execute(FIND_KEY, (key_id,))).fetchone()
    return None if row is None else (read_api_key(row[:-1]), row[-1])


async def list_api_keys(connection: Connection, user_id: str | None = None) -> Sequence[ApiKey]:
    if user_id is None:
        found = await connection.execute(ALL_KEYS)
    else:
        found = await connection.execute(KEYS_OF_USER, (user_id,))
    return [read_api_key(row) for row in await found.fetchall()]


async def revoke_api_key(connection: Connection, key_id: str, at: float) -> bool:
    changed = await connection.execute(_REVOKE_KEY, (from_seconds(at), key_id))
    return changed.rowcount > 0


async def touch_api_keys(connection: Connection, used: Mapping[str, float]) -> None:
    moments = [from_seconds(moment) for moment in used.values()]
    await connection.execute(_TOUCH_KEYS, (list(used), moments))


async def add_revocation(connection: Connection, revocation: Revocation) -> None:
    subject = (revocation.token_id, revocation.issuer, revocation.user_id)
    times = (revocation.at, revocation.expires_at)
    row = (*(part or "" for part in subject), *map(from_seconds, times))
    async with connection.pipeline():
        await prune_revocations(connection)
        await connection.execute(_REVOKE, row)


async def prune_revocations(connection: Connection) -> None:
    await connection.execute(_PRUNE, (now(),))


async def list_revocations(connection: Connection, now: float) -> Sequence[Revocation]:
    found = await connection.execute(REVOCATIONS, (from_seconds(now),))
    return [read_revocation(row) for row in await found.fetchall()]
