"""Stopping runs: SQL for SQLite. Every function runs inside a transaction of the caller's."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Sequence

from agentflow_server.errors import RunEnded
from agentflow_server.models import Event, Run, Stop
from agentflow_server.stores.rows import Row, event_row, now
from agentflow_server.stores.rules import no_run
from agentflow_server.stores.sqlite_delays import take_turn
from agentflow_server.stores.sqlite_messages import INSERT_EVENT
from agentflow_server.stores.sqlite_run_lists import get_run
from agentflow_server.stores.sqlite_threads import IS_BUSY
from agentflow_server.stores.sqlite_webhooks import leave_delivery

# Whether somebody has to end it who knows its agent: that one has to forget, if it has begun.
_LASTS = """
    runs.status = 'running' OR (started_at IS NOT NULL AND (? OR stopping IS 'rollback'))"""
_FIND = f"""
    SELECT run_id, {_LASTS}, turn, start_after, runs.status
    FROM runs JOIN threads USING (thread_id)
    WHERE run_id = ? AND thread_id = ? AND threads.owner = ? AND hidden = 0"""
# In two parts, each with an index of its own: a thread may have ended very many runs.
UNFINISHED = f"""
    SELECT run_id, {_LASTS}, turn, start_after FROM runs
        WHERE thread_id = ? AND status = 'running'
    UNION ALL SELECT run_id, {_LASTS}, turn, start_after FROM runs
        WHERE thread_id = ? AND status = 'pending' AND start_after IS NULL
    ORDER BY turn"""
# A rollback beats a cancel, whichever came first.
_MARK = """
    UPDATE runs SET stopping = CASE WHEN stopping = 'rollback' THEN stopping ELSE ? END
    WHERE run_id = ?"""
_LAST_EVENT = "SELECT coalesce(max(seq), 0) FROM run_events WHERE run_id = ?"
_END = "UPDATE runs SET status = 'cancelled', ended_at = ? WHERE run_id = ?"
FORGET_TURN = "DELETE FROM messages WHERE thread_id = ? AND turn = ?"
SETTLE = f"""
    UPDATE threads SET updated_at = ?, status = CASE
        WHEN {IS_BUSY} THEN 'busy'
        WHEN interrupted_run IS NOT NULL THEN 'interrupted'
        WHEN status = 'busy' THEN 'idle'
        ELSE status END
    WHERE thread_id = ?"""


def stop_run(
    connection: sqlite3.Connection, owner: str, thread_id: str, run_id: str, how: Stop
) -> Run:
    values = (how == "rollback", run_id, thread_id, owner)
    found = connection.execute(_FIND, values).fetchone()
    if found is None:
        raise no_run()
    *found, status = found
    if status not in ("pending", "running"):
        raise RunEnded("The run has ended")
    _stop(connection, thread_id, found, how)
    settle(connection, thread_id)
    return get_run(connection, owner, thread_id, run_id)


def settle(connection: sqlite3.Connection, thread_id: str) -> None:
    """Let the thread say how it stands now that runs of it may have ended without a worker."""
    connection.execute(SETTLE, (now(), thread_id))


def stop_all(
    connection: sqlite3.Connection, thread_id: str, how: Stop
) -> tuple[str | None, Sequence[str]]:
    """Every unfinished run of the thread: the one that is to be ended, and those that have."""
    values = (how == "rollback", thread_id)
    unfinished = connection.execute(UNFINISHED, (*values, *values)).fetchall()
    for found in unfinished:
        _stop(connection, thread_id, found, how)
    stopping = next((run_id for run_id, lasts, *_ in unfinished if lasts), None)
    return stopping, [run_id for run_id, lasts, *_ in unfinished if not lasts]


def _stop(connection: sqlite3.Connection, thread_id: str, found: Row, how: Stop) -> None:
    run_id, lasts, turn, start_after = found
    if lasts:
        connection.execute(_MARK, (how, run_id))
        return
    if start_after is not None:
        turn = take_turn(connection, thread_id, run_id, turn)
    connection.execute(_END, (now(), run_id))
    data = {"thread_id": thread_id, "run_id": run_id, "status": "cancelled"}
    (seq,) = connection.execute(_LAST_EVENT, (run_id,)).fetchone()
    ended = Event(run_id, seq + 1, "run.cancelled", data)
    connection.execute(INSERT_EVENT, event_row(run_id, ended))
    if how == "rollback":
        connection.execute(FORGET_TURN, (thread_id, turn))
    leave_delivery(connection, run_id)
