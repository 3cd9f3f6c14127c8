"""Deleting what has had its time: SQL for SQLite, inside a caller's transaction."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from agentflow_server.stores import sqlite_idempotency
from agentflow_server.stores.rows import now, to_microseconds
from agentflow_server.stores.sqlite_credentials import prune_revocations

ENDED = """
    SELECT run_id FROM runs WHERE has_events = 1 AND status <> 'interrupted' AND ended_at < ?
    ORDER BY ended_at LIMIT ?"""
# A question that nobody can answer any more.
LEFT_BEHIND = """
    SELECT run_id FROM runs WHERE has_events = 1 AND status = 'interrupted' AND ended_at < ?
        AND NOT EXISTS (SELECT 1 FROM threads
            WHERE threads.thread_id = runs.thread_id AND interrupted_run = run_id)
    ORDER BY ended_at LIMIT ?"""
_DELETE = "DELETE FROM run_events WHERE run_id = ?"
_MARK = "UPDATE runs SET has_events = 0 WHERE run_id = ?"


def list_prunable(
    connection: sqlite3.Connection, moment: datetime, limit: int
) -> Sequence[tuple[str]]:
    """Rows of run_id. What is here will not change its mind: it can be deleted later."""
    before = to_microseconds(moment)
    found = connection.execute(ENDED, (before, limit)).fetchall()
    if len(found) < limit:
        found += connection.execute(LEFT_BEHIND, (before, limit - len(found))).fetchall()
    return found


def prune(connection: sqlite3.Connection, runs: Sequence[tuple[str]], limit: int) -> None:
    """Delete the events of these runs, and what has expired."""
    connection.executemany(_DELETE, runs)
    connection.executemany(_MARK, runs)
    sqlite_idempotency.prune(connection, now(), limit=limit)
    prune_revocations(connection)
