"""Messages and events: SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Sequence

from agentflow_server.models import ActiveRun, Event, Message, Page
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.postgres_threads import require_thread
from agentflow_server.stores.rows import MESSAGE_COLUMNS, read_event, read_messages

PAGE = f"""
    SELECT turn, position, {MESSAGE_COLUMNS} FROM messages
    WHERE thread_id = %s AND (turn, position) > (%s, %s) ORDER BY turn, position LIMIT %s"""
EARLIER = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages
    WHERE thread_id = %s AND turn < %s ORDER BY turn DESC, position DESC LIMIT %s::bigint"""
OF_RUN = f"""
    SELECT {MESSAGE_COLUMNS} FROM runs JOIN messages USING (thread_id, turn)
    WHERE runs.run_id = %s ORDER BY position"""
EVENTS = """
    SELECT run_id, seq, type, data FROM run_events
    WHERE run_id = %s AND seq > %s ORDER BY seq LIMIT %s"""


async def list_messages(
    connection: Connection, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
) -> Page[Message]:
    listing = f"messages:{thread_id}"
    after = (0, -1) if cursor is None else decode_cursor(listing, cursor, int, int)
    async with require_thread(connection, owner, thread_id):
        found = await connection.execute(PAGE, (thread_id, *after, limit + 1))
    rows = await found.fetchall()
    more = len(rows) > limit
    return Page(
        data=read_messages(row[2:] for row in rows[:limit]),
        next_cursor=encode_cursor(listing, *rows[limit - 1][:2]) if more else None,
    )


async def history(
    connection: Connection, active: ActiveRun, *, limit: int | None
) -> Sequence[Message]:
    before = None if limit is None else max(limit - 1, 0)
    found = await connection.execute(EARLIER, (active.run.thread_id, active.turn, before))
    return [*read_messages(reversed(await found.fetchall())), active.message]


async def run_messages(connection: Connection, run_id: str) -> Sequence[Message]:
    found = await connection.execute(OF_RUN, (run_id,))
    return read_messages(await found.fetchall())


async def list_events(
    connection: Connection, run_id: str, *, after: int, limit: int
) -> Sequence[Event]:
    found = await connection.execute(EVENTS, (run_id, after, limit))
    return [read_event(row) for row in await found.fetchall()]
