"""Finding and listing runs: SQL for SQLite. Every function runs inside a caller's transaction."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Sequence

from agentflow_server.models import ActiveRun, Page, QueueState, Run
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.rows import (
    ACTIVE_COLUMNS,
    RUN_COLUMNS,
    WAITS_SINCE,
    now,
    read_active,
    read_run,
)
from agentflow_server.stores.rules import no_run
from agentflow_server.stores.sqlite_messages import require_thread

_ACTIVE = f"""
    SELECT {ACTIVE_COLUMNS} FROM runs
    JOIN messages ON messages.thread_id = runs.thread_id AND messages.turn = runs.turn
        AND messages.position = 0"""
GET_ACTIVE = f"{_ACTIVE} WHERE runs.run_id = ?"
ALL_RUNNING = f"{_ACTIVE} WHERE runs.status = 'running' ORDER BY runs.started_at"
QUEUE = f"""
    SELECT (SELECT count(*) FROM runs WHERE status = 'running'),
        (SELECT count(*) FROM runs WHERE status = 'pending'),
        count(*), min({WAITS_SINCE})
    FROM runs WHERE status = 'pending' AND start_after IS NULL AND NOT EXISTS (
        SELECT 1 FROM runs AS other
        WHERE other.thread_id = runs.thread_id AND other.status = 'running')"""
GET = f"""
    SELECT {RUN_COLUMNS}, (SELECT count(*) FROM runs AS other
        WHERE other.thread_id = runs.thread_id AND other.turn < runs.turn
            AND other.status = 'pending' AND other.start_after IS NULL)
    FROM runs JOIN threads USING (thread_id)
    WHERE run_id = ? AND thread_id = ? AND threads.owner = ? AND hidden = 0"""
PAGE = f"""
    SELECT turn, {RUN_COLUMNS} FROM runs
    WHERE thread_id = ? AND turn < ? ORDER BY turn DESC LIMIT ?"""


def read_queue(connection: sqlite3.Connection) -> QueueState:
    running, pending, ready, oldest = connection.execute(QUEUE).fetchone()
    waiting = 0 if oldest is None else max(0, now() - oldest)
    return QueueState(running, pending, ready, waiting / 1_000_000)


def list_running(connection: sqlite3.Connection) -> Sequence[ActiveRun]:
    return [read_active(row) for row in connection.execute(ALL_RUNNING)]


def get_run(connection: sqlite3.Connection, owner: str, thread_id: str, run_id: str) -> Run:
    row = connection.execute(GET, (run_id, thread_id, owner)).fetchone()
    if row is None:
        raise no_run()
    run = read_run(row[:-1])
    if run.status != "pending" or run.start_after is not None:
        return run
    return run.model_copy(update={"queue_position": row[-1] + 1})


def list_runs(
    connection: sqlite3.Connection,
    owner: str,
    thread_id: str,
    *,
    limit: int,
    cursor: str | None = None,
) -> Page[Run]:
    require_thread(connection, owner, thread_id)
    listing = f"runs:{thread_id}"
    before = (2**63 - 1,) if cursor is None else decode_cursor(listing, cursor, int)
    rows = connection.execute(PAGE, (thread_id, *before, limit + 1)).fetchall()
    more = len(rows) > limit
    return Page(
        data=[read_run(row[1:]) for row in rows[:limit]],
        next_cursor=encode_cursor(listing, rows[limit - 1][0]) if more else None,
    )
