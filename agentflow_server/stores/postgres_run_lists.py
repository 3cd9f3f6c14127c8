"""Finding and listing runs: SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Sequence

from agentflow_server.models import ActiveRun, Page, QueueState, Run
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.postgres_threads import require_thread
from agentflow_server.stores.rows import (
    ACTIVE_COLUMNS,
    RUN_COLUMNS,
    WAITS_SINCE,
    now,
    read_active,
    read_run,
)
from agentflow_server.stores.rules import no_run

_ACTIVE = f"""
    SELECT {ACTIVE_COLUMNS} FROM runs
    JOIN messages ON messages.thread_id = runs.thread_id AND messages.turn = runs.turn
        AND messages.position = 0"""
_GET_ACTIVE = f"{_ACTIVE} WHERE runs.run_id = %s"
ALL_RUNNING = f"{_ACTIVE} WHERE runs.status = 'running' ORDER BY runs.started_at"
# Those that are delayed are counted apart, because they have an index of their own.
QUEUE = f"""
    SELECT (SELECT count(*) FROM runs WHERE status = 'running'),
        (SELECT count(*) FROM runs WHERE status = 'pending' AND start_after IS NULL)
        + (SELECT count(*) FROM runs WHERE status = 'pending' AND start_after IS NOT NULL),
        count(*), min({WAITS_SINCE})
    FROM runs WHERE status = 'pending' AND start_after IS NULL AND NOT EXISTS (
        SELECT 1 FROM runs AS other
        WHERE other.thread_id = runs.thread_id AND other.status = 'running')"""
_GET = f"""
    SELECT {RUN_COLUMNS}, (SELECT count(*) FROM runs AS other
        WHERE other.thread_id = runs.thread_id AND other.turn < runs.turn
            AND other.status = 'pending' AND other.start_after IS NULL)
    FROM runs JOIN threads USING (thread_id)
    WHERE run_id = %s AND thread_id = %s AND threads.owner = %s AND NOT hidden"""
PAGE = f"""
    SELECT turn, {RUN_COLUMNS} FROM runs
    WHERE thread_id = %s AND turn < %s ORDER BY turn DESC LIMIT %s"""


async def find_active(connection: Connection, run_id: str) -> ActiveRun | None:
    """None, too, for a run whose turn was forgotten."""
    found = await connection.execute(_GET_ACTIVE, (run_id,))
    row = await found.fetchone()
    return None if row is None else read_active(row)


async def list_running(connection: Connection) -> Sequence[ActiveRun]:
    found = await connection.execute(ALL_RUNNING)
    return [read_active(row) for row in await found.fetchall()]


async def read_queue(connection: Connection) -> QueueState:
    row = await (await connection.execute(QUEUE)).fetchone()
    assert row is not None  # noqa: S101 – an aggregate
    running, pending, ready, oldest = row
    waiting = 0 if oldest is None else max(0, now() - oldest)
    return QueueState(running, pending, ready, waiting / 1_000_000)


async def get_run(connection: Connection, owner: str, thread_id: str, run_id: str) -> Run:
    found = await connection.execute(_GET, (run_id, thread_id, owner))
    row = await found.fetchone()
    if row is None:
        raise no_run()
    run = read_run(row[:-1])
    if run.status != "pending" or run.start_after is not None:
        return run
    return run.model_copy(update={"queue_position": row[-1] + 1})


async def list_runs(
    connection: Connection, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
) -> Page[Run]:
    listing = f"runs:{thread_id}"
    before = (2**63 - 1,) if cursor is None else decode_cursor(listing, cursor, int)
    async with require_thread(connection, owner, thread_id):
        found = await connection.execute(PAGE, (thread_id, *before, limit + 1))
    rows = await found.fetchall()
    more = len(rows) > limit
    return Page(
        data=[read_run(row[1:]) for row in rows[:limit]],
        next_cursor=encode_cursor(listing, rows[limit - 1][0]) if more else None,
    )
