"""Runs whose time has not come: SQL for SQLite. Every function runs inside a transaction of the
caller's.

Until then a run's turn is after all others of its thread, so that its message is in nobody's
history; when its time has come it gets the next turn like a message that arrives.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from agentflow_server.stores.rows import to_datetime, to_microseconds

_DELAYED_TURNS = 1 << 40
LAST_DELAYED = "SELECT max(turn) FROM runs WHERE thread_id = ? AND turn >= ?"
_NEXT_TURN = """
    UPDATE threads SET next_turn = next_turn + 1 WHERE thread_id = ? RETURNING next_turn - 1"""
_MOVE_RUN = "UPDATE runs SET turn = ?, start_after = NULL WHERE run_id = ?"
_MOVE_MESSAGE = "UPDATE messages SET turn = ? WHERE thread_id = ? AND turn = ?"
_OCCUPY = "UPDATE threads SET status = 'busy' WHERE thread_id = ?"
DUE = """
    SELECT run_id, thread_id, turn FROM runs JOIN threads USING (thread_id)
    WHERE runs.status = 'pending' AND start_after <= ? AND hidden = 0
    ORDER BY start_after, runs.created_at, turn"""
NEXT_DUE = """
    SELECT start_after FROM runs JOIN threads USING (thread_id)
    WHERE runs.status = 'pending' AND start_after IS NOT NULL AND hidden = 0
    ORDER BY start_after LIMIT 1"""


def find_delayed_turn(connection: sqlite3.Connection, thread_id: str) -> int:
    """Where one more delayed run waits."""
    (last,) = connection.execute(LAST_DELAYED, (thread_id, _DELAYED_TURNS)).fetchone()
    return _DELAYED_TURNS if last is None else last + 1


def take_turn(connection: sqlite3.Connection, thread_id: str, run_id: str, turn: int) -> int:
    """Give a delayed run the thread's next turn, which is returned."""
    (next_turn,) = connection.execute(_NEXT_TURN, (thread_id,)).fetchone()
    connection.execute(_MOVE_RUN, (next_turn, run_id))
    connection.execute(_MOVE_MESSAGE, (next_turn, thread_id, turn))
    return int(next_turn)


def release_delayed(
    connection: sqlite3.Connection, until: datetime
) -> tuple[Sequence[str], datetime | None]:
    threads: dict[str, None] = {}
    for run_id, thread_id, turn in connection.execute(DUE, (to_microseconds(until),)).fetchall():
        take_turn(connection, thread_id, run_id, turn)
        connection.execute(_OCCUPY, (thread_id,))
        threads[thread_id] = None
    row = connection.execute(NEXT_DUE).fetchone()
    return list(threads), None if row is None else to_datetime(row[0])
