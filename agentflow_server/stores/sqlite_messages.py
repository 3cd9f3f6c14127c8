"""Messages and events: SQL for SQLite. Every function runs inside a transaction of the caller's."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Sequence

from agentflow_server.models import ActiveRun, Event, Message, Page
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.rows import MESSAGE_COLUMNS, read_event, read_messages
from agentflow_server.stores.rules import no_thread

INSERT_MESSAGE = """
    INSERT INTO messages
        (thread_id, turn, position, message_id, run_id, role, content, metadata, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# A caller that was cancelled does not know whether his events were stored, and sends them again.
INSERT_EVENT = """
    INSERT INTO run_events (run_id, seq, type, data) VALUES (?, ?, ?, ?)
    ON CONFLICT (run_id, seq) DO NOTHING"""
OWNED_THREAD = "SELECT 1 FROM threads WHERE thread_id = ? AND owner = ? AND hidden = 0"
PAGE = f"""
    SELECT turn, position, {MESSAGE_COLUMNS} FROM messages
    WHERE thread_id = ? AND (turn, position) > (?, ?) ORDER BY turn, position LIMIT ?"""
EARLIER = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages
    WHERE thread_id = ? AND turn < ? ORDER BY turn DESC, position DESC LIMIT ?"""
OF_RUN = f"""
    SELECT {MESSAGE_COLUMNS} FROM runs JOIN messages USING (thread_id, turn)
    WHERE runs.run_id = ? ORDER BY position"""
EVENTS = """
    SELECT run_id, seq, type, data FROM run_events
    WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?"""


def require_thread(connection: sqlite3.Connection, owner: str, thread_id: str) -> None:
    """Raises NotFound."""
    if connection.execute(OWNED_THREAD, (thread_id, owner)).fetchone() is None:
        raise no_thread()


def list_messages(
    connection: sqlite3.Connection,
    owner: str,
    thread_id: str,
    *,
    limit: int,
    cursor: str | None = None,
) -> Page[Message]:
    require_thread(connection, owner, thread_id)
    listing = f"messages:{thread_id}"
    after = (0, -1) if cursor is None else decode_cursor(listing, cursor, int, int)
    rows = connection.execute(PAGE, (thread_id, *after, limit + 1)).fetchall()
    page = read_messages(row[2:] for row in rows[:limit])
    more = len(rows) > limit
    return Page(
        data=page,
        next_cursor=encode_cursor(listing, *rows[limit - 1][:2]) if more else None,
    )


def history(
    connection: sqlite3.Connection, active: ActiveRun, *, limit: int | None
) -> Sequence[Message]:
    before = -1 if limit is None else max(limit - 1, 0)
    rows = connection.execute(EARLIER, (active.run.thread_id, active.turn, before)).fetchall()
    return [*read_messages(reversed(rows)), active.message]


def run_messages(connection: sqlite3.Connection, run_id: str) -> Sequence[Message]:
    return read_messages(connection.execute(OF_RUN, (run_id,)))


def list_events(
    connection: sqlite3.Connection, run_id: str, *, after: int, limit: int
) -> Sequence[Event]:
    return [read_event(row) for row in connection.execute(EVENTS, (run_id, after, limit))]
