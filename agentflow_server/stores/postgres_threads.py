"""Threads: SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncCursor

from agentflow_server.errors import IdTaken, InvalidRequest, ThreadBusy
from agentflow_server.models import Idempotency, JsonObject, Page, Thread, ThreadStatus
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.stores.postgres_idempotency import find_made, remember
from agentflow_server.stores.postgres_lines import lock_line
from agentflow_server.stores.postgres_webhooks import FORGET
from agentflow_server.stores.rows import (
    THREAD_COLUMNS,
    Row,
    from_seconds,
    now,
    read_thread,
    to_text,
)
from agentflow_server.stores.rules import MAX_FILTERS, Made, no_thread

Cursor = AsyncCursor[Any]

_OWNED = "SELECT 1 FROM threads WHERE thread_id = %s AND owner = %s AND NOT hidden"
_INSERT = """
    INSERT INTO threads (thread_id, owner, status, metadata, created_at, updated_at)
    VALUES (%s, %s, 'idle', %s, %s, %s) ON CONFLICT (thread_id) DO NOTHING"""
_GET = f"SELECT {THREAD_COLUMNS} FROM threads WHERE thread_id = %s AND owner = %s AND NOT hidden"
_UPDATE = f"""
    UPDATE threads SET name = coalesce(%s, name), metadata = %s, updated_at = %s
    WHERE thread_id = %s RETURNING {THREAD_COLUMNS}"""
_NAME = """
    UPDATE threads SET name = %s, updated_at = %s
    WHERE thread_id = %s AND name IS NULL AND NOT hidden"""
IS_BUSY = """(
    EXISTS (SELECT 1 FROM runs WHERE thread_id = threads.thread_id AND status = 'running')
    OR EXISTS (SELECT 1 FROM runs
        WHERE thread_id = threads.thread_id AND status = 'pending' AND start_after IS NULL))"""
_GET_TO_HIDE = f"""
    SELECT agent, {IS_BUSY} FROM threads
    WHERE thread_id = %s AND owner = %s AND NOT hidden"""
# A hidden thread that is busy is a copy that somebody is filling.
_CONDEMN = """
    UPDATE threads SET status = 'idle' WHERE hidden AND status = 'busy' AND updated_at <= %s"""
_LEFT_BEHIND = "SELECT thread_id, agent FROM threads WHERE hidden AND updated_at <= %s"
_OLDEST = (
    "SELECT min(turn) FROM runs JOIN threads USING (thread_id) WHERE thread_id = %s AND hidden"
)


async def create_thread(
    connection: Connection,
    owner: str,
    thread_id: str,
    *,
    metadata: JsonObject,
    reuse: bool = False,
    idempotency: Idempotency | None = None,
) -> Thread:
    moment = now()
    row = (thread_id, owner, to_text(metadata), moment, moment)
    if idempotency is None:
        async with connection.pipeline():
            created = await _insert_and_get(connection, row)
        return await _read_created(*created, reuse=reuse)
    async with transaction(connection):
        if made := await find_made(connection, owner, idempotency, moment):
            return await get_thread(connection, owner, made.thread_id)
        created = await _insert_and_get(connection, row)
        await remember(connection, owner, idempotency, Made(thread_id, None), moment)
        return await _read_created(*created, reuse=reuse)


async def _insert_and_get(connection: Connection, row: Row) -> tuple[Cursor, Cursor]:
    inserted = await connection.execute(_INSERT, row)
    return inserted, await connection.execute(_GET, row[:2])


async def _read_created(inserted: Cursor, found: Cursor, *, reuse: bool) -> Thread:
    row = await found.fetchone()
    if row is None or not (inserted.rowcount or reuse):
        raise IdTaken("The thread_id is taken")
    return read_thread(row)


async def get_thread(connection: Connection, owner: str, thread_id: str) -> Thread:
    found = await connection.execute(_GET, (thread_id, owner))
    row = await found.fetchone()
    if row is None:
        raise no_thread()
    return read_thread(row)


@asynccontextmanager
async def require_thread(connection: Connection, owner: str, thread_id: str) -> AsyncIterator[None]:
    """Asks in the same round trip as the statements within. Raises NotFound."""
    async with connection.pipeline():
        owned = await connection.execute(_OWNED, (thread_id, owner))
        yield
    if await owned.fetchone() is None:
        raise no_thread()


async def update_thread(
    connection: Connection,
    owner: str,
    thread_id: str,
    *,
    name: str | None = None,
    metadata: JsonObject | None = None,
) -> Thread:
    async with transaction(connection):
        await lock_line(connection, thread_id)
        thread = await get_thread(connection, owner, thread_id)
        merged = thread.metadata | (metadata or {})
        for key, value in (metadata or {}).items():
            if value is None:
                del merged[key]
        changed = await connection.execute(_UPDATE, (name, to_text(merged), now(), thread_id))
        row = await changed.fetchone()
        assert row is not None  # noqa: S101 – locked
        return read_thread(row)


async def name_thread(connection: Connection, thread_id: str, name: str) -> None:
    await connection.execute(_NAME, (name, now(), thread_id))


async def hide_thread(connection: Connection, owner: str, thread_id: str) -> str | None:
    async with transaction(connection):
        await lock_line(connection, thread_id)
        found = await connection.execute(_GET_TO_HIDE, (thread_id, owner))
        row = await found.fetchone()
        if row is None:
            raise no_thread()
        agent, busy = row
        if busy:
            raise ThreadBusy("The thread has a run that has not ended")
        await connection.execute(
            "UPDATE threads SET hidden = true, updated_at = %s WHERE thread_id = %s",
            (now(), thread_id),
        )
        await connection.execute(FORGET, (thread_id,))
        # A key that made this thread may make another one from now on.
        await connection.execute("DELETE FROM idempotency WHERE thread_id = %s", (thread_id,))
        return None if agent is None else str(agent)


async def list_hidden(
    connection: Connection, *, older_than: float = 0.0
) -> list[tuple[str, str | None]]:
    before = now() - from_seconds(older_than)
    async with connection.pipeline():
        await connection.execute(_CONDEMN, (before,))
        found = await connection.execute(_LEFT_BEHIND, (before,))
    return await found.fetchall()


async def purge_slice(connection: Connection, thread_id: str, turns: int) -> bool:
    """Delete up to `turns` turns of a hidden thread, or else the thread itself; True: go on."""
    async with transaction(connection):
        found = await connection.execute(_OLDEST, (thread_id,))
        row = await found.fetchone()
        oldest = row and row[0]
        if oldest is None:
            await connection.execute(
                "DELETE FROM threads WHERE thread_id = %s AND hidden", (thread_id,)
            )
            return False
        up_to = (thread_id, oldest + turns)
        await connection.execute("DELETE FROM messages WHERE thread_id = %s AND turn < %s", up_to)
        await connection.execute("DELETE FROM runs WHERE thread_id = %s AND turn < %s", up_to)
        return True


async def list_threads(
    connection: Connection,
    owner: str,
    *,
    limit: int,
    cursor: str | None = None,
    status: ThreadStatus | None = None,
    metadata: JsonObject | None = None,
) -> Page[Thread]:
    sql, parameters = select_threads(owner, cursor=cursor, status=status, metadata=metadata)
    found = await connection.execute(f"{sql} LIMIT %s", (*parameters, limit + 1))
    rows = await found.fetchall()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        data=[read_thread(row) for row in rows[:limit]],
        next_cursor=None if last is None else encode_cursor(f"threads:{owner}", last[4], last[0]),
    )


def select_threads(
    owner: str,
    *,
    cursor: str | None = None,
    status: ThreadStatus | None = None,
    metadata: JsonObject | None = None,
) -> tuple[str, Sequence[Any]]:
    """The statement behind `list_threads`, without its limit. Raises InvalidRequest."""
    conditions = ["owner = %s", "NOT hidden"]
    parameters: list[Any] = [owner]
    if cursor is not None:
        conditions.append("(created_at, thread_id) < (%s, %s)")
        parameters.extend(decode_cursor(f"threads:{owner}", cursor, int, str))
    if status is not None:
        conditions.append("status = %s")
        parameters.append(status)
    if metadata and len(metadata) > MAX_FILTERS:
        raise InvalidRequest(f"At most {MAX_FILTERS} members of metadata can be asked for")
    for key, value in (metadata or {}).items():
        # Equality of jsonb is that of JSON: 1 is 1.0 but not true, and objects have no order.
        conditions.append("metadata::jsonb -> %s::text = %s::jsonb")
        parameters.extend((key, to_text(value)))
    return (
        f"SELECT {THREAD_COLUMNS} FROM threads WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at DESC, thread_id DESC"
    ), parameters
