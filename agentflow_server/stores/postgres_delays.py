"""Runs whose time has not come: SQL for PostgreSQL.

Until then a run's turn is after all others of its thread, so that its message is in nobody's
history; when its time has come it gets the next turn like a message that arrives.
"""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Sequence

from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.postgres_lines import run_locked

DELAYED_TURN = f"""(
    SELECT coalesce(max(turn) + 1, {1 << 40}) FROM runs
    WHERE thread_id = %(thread_id)s AND turn >= {1 << 40})"""
DUE = """
    SELECT run_id, thread_id FROM runs JOIN threads USING (thread_id)
    WHERE runs.status = 'pending' AND start_after <= %s AND NOT hidden
    ORDER BY start_after, runs.created_at, turn"""
NEXT_DUE = """
    SELECT start_after FROM runs JOIN threads USING (thread_id)
    WHERE runs.status = 'pending' AND start_after IS NOT NULL AND NOT hidden
    ORDER BY start_after LIMIT 1"""
_TAKE_TURN = """
    WITH due AS (
        SELECT run_id, turn FROM runs
        WHERE run_id = %(run_id)s AND status = 'pending' AND start_after <= %(until)s
    ), thread AS (
        UPDATE threads SET next_turn = next_turn + 1, status = 'busy'
        WHERE thread_id = %(thread_id)s AND EXISTS (SELECT 1 FROM due)
        RETURNING next_turn - 1 AS turn
    ), released AS (
        UPDATE runs SET turn = thread.turn, start_after = NULL FROM thread, due
        WHERE runs.run_id = due.run_id
    ), moved AS (
        UPDATE messages SET turn = thread.turn FROM thread, due
        WHERE messages.thread_id = %(thread_id)s AND messages.turn = due.turn
    )
    SELECT 1 FROM thread"""
_EVER = 2**63 - 1


async def list_due(connection: Connection, *, until: int) -> Sequence[tuple[str, str]]:
    """(run_id, thread_id) of runs whose time has come, in the order in which they go."""
    return await (await connection.execute(DUE, (until,))).fetchall()


async def find_next_due(connection: Connection) -> int | None:
    row = await (await connection.execute(NEXT_DUE)).fetchone()
    return None if row is None else int(row[0])


async def take_turn(
    connection: Connection, run_id: str, thread_id: str, *, until: int = _EVER
) -> bool:
    """Give a delayed run the thread's next turn.

    False when somebody else has done so, or ended it.
    """
    values = {"run_id": run_id, "thread_id": thread_id, "until": until}
    return await run_locked(connection, _TAKE_TURN, values) is not None
