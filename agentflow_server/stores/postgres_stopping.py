"""Stopping runs: SQL for PostgreSQL. Every function runs inside a transaction."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Sequence

from agentflow_server.errors import RunEnded
from agentflow_server.models import Run, Stop
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.stores.postgres_delays import take_turn
from agentflow_server.stores.postgres_lines import lock_line
from agentflow_server.stores.postgres_run_lists import get_run
from agentflow_server.stores.postgres_threads import IS_BUSY
from agentflow_server.stores.postgres_webhooks import LEAVE, TOLD_OF
from agentflow_server.stores.rows import now

# Whether somebody has to end it who knows its agent: that one has to forget, if it has begun.
_LASTS = """
    runs.status = 'running' OR (started_at IS NOT NULL
        AND (%(how)s = 'rollback' OR stopping IS NOT DISTINCT FROM 'rollback')) AS lasts"""
_LAST = """(
    SELECT coalesce(max(position), 0) FROM messages
    WHERE messages.thread_id = ended.thread_id AND messages.turn = ended.turn)"""
# A rollback beats a cancel, whichever came first.
_STOP = f"""
    WITH unfinished AS ({{unfinished}}
    ), marked AS (
        UPDATE runs SET stopping =
            CASE WHEN runs.stopping = 'rollback' THEN runs.stopping ELSE %(how)s END
        FROM unfinished WHERE runs.run_id = unfinished.run_id AND lasts
    ), ended AS (
        UPDATE runs SET status = 'cancelled', ended_at = %(now)s
        FROM unfinished WHERE runs.run_id = unfinished.run_id AND NOT lasts
        RETURNING {TOLD_OF}, runs.turn
    ), told AS (
        INSERT INTO run_events (run_id, seq, type, data)
        SELECT run_id, 1 + (
                SELECT coalesce(max(seq), 0) FROM run_events WHERE run_events.run_id = ended.run_id
            ), 'run.cancelled', json_build_object(
                'thread_id', thread_id, 'run_id', run_id, 'status', 'cancelled')::text
        FROM ended ON CONFLICT (run_id, seq) DO NOTHING
    ), left_over AS ({LEAVE.format(last=_LAST)}
    ), forgotten AS (
        DELETE FROM messages USING ended
        WHERE messages.thread_id = ended.thread_id AND messages.turn = ended.turn
            AND %(how)s = 'rollback'
    )
    SELECT run_id, lasts FROM unfinished ORDER BY turn"""
_STOP_ONE = _STOP.format(
    unfinished=f"""
        SELECT run_id, turn, {_LASTS} FROM runs
        WHERE run_id = %(run_id)s AND status IN ('pending', 'running')"""
)
_STOP_ALL = _STOP.format(
    unfinished=f"""
        SELECT run_id, turn, {_LASTS} FROM runs JOIN threads USING (thread_id)
        WHERE thread_id = %(thread_id)s AND threads.owner = %(owner)s AND runs.status = 'running'
        UNION ALL
        SELECT run_id, turn, {_LASTS} FROM runs JOIN threads USING (thread_id)
        WHERE thread_id = %(thread_id)s AND threads.owner = %(owner)s
            AND runs.status = 'pending' AND start_after IS NULL
"""
)
_SETTLE = f"""
    UPDATE threads SET updated_at = %s, status = CASE
        WHEN {IS_BUSY} THEN 'busy'
        WHEN interrupted_run IS NOT NULL THEN 'interrupted'
        WHEN status = 'busy' THEN 'idle'
        ELSE status END
    WHERE thread_id = %s"""


async def stop_run(
    connection: Connection, owner: str, thread_id: str, run_id: str, how: Stop
) -> Run:
    async with transaction(connection):
        await lock_line(connection, thread_id)
        run = await get_run(connection, owner, thread_id, run_id)
        if run.status not in ("pending", "running"):
            raise RunEnded("The run has ended")
        if run.start_after is not None:
            await take_turn(connection, run_id, thread_id)
        moment = now()
        await connection.execute(_STOP_ONE, {"run_id": run_id, "how": how, "now": moment})
        await connection.execute(_SETTLE, (moment, thread_id))
        return await get_run(connection, owner, thread_id, run_id)


async def stop_all(
    connection: Connection, owner: str, thread_id: str, how: Stop
) -> tuple[str | None, Sequence[str]]:
    """Every unfinished run of the thread: the one that is to be ended, and those that have.

    The caller has locked the line.
    """
    moment = now()
    found = await connection.execute(
        _STOP_ALL, {"thread_id": thread_id, "owner": owner, "how": how, "now": moment}
    )
    await connection.execute(_SETTLE, (moment, thread_id))
    unfinished = await found.fetchall()
    stopping = next((run_id for run_id, lasts in unfinished if lasts), None)
    return stopping, [run_id for run_id, lasts in unfinished if not lasts]
