"""Copies of threads: SQL for SQLite. Every function runs inside a transaction of the caller's.

A copy is a hidden thread that is `busy` as long as somebody fills it: whoever is going to delete
what a crash left behind takes that away first.
"""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic_core import from_json
from uuid_utils import uuid7

from agentflow_server.errors import IdTaken, ThreadBusy
from agentflow_server.models import CopyPoint, Idempotency, JsonObject, Thread, ThreadCopy
from agentflow_server.stores.copies import copy_lost, status_of
from agentflow_server.stores.rows import now, to_text
from agentflow_server.stores.rules import Made, no_thread
from agentflow_server.stores.sqlite_idempotency import find_made, remember
from agentflow_server.stores.sqlite_messages import INSERT_MESSAGE
from agentflow_server.stores.sqlite_threads import IS_BUSY, get_thread

_SOURCE = "SELECT agent, metadata FROM threads WHERE thread_id = ? AND owner = ? AND hidden = 0"
_INSERT = """
    INSERT INTO threads (thread_id, owner, status, agent, metadata, created_at, updated_at, hidden)
    VALUES (?, ?, 'busy', ?, ?, ?, ?, 1) ON CONFLICT (thread_id) DO NOTHING"""
# A run that begins takes a turn; one that is resumed was the interrupted one, and ends later.
_STAMP = f"""
    SELECT next_turn || coalesce(
        ' ' || (SELECT run_id || ended_at FROM runs WHERE run_id = interrupted_run), ''), {IS_BUSY}
    FROM threads WHERE thread_id = ? AND hidden = 0"""
ENDED = """
    SELECT run_id FROM runs WHERE thread_id = ? AND ended_at IS NOT NULL ORDER BY turn"""
_HOLD = """
    UPDATE threads SET updated_at = ? WHERE thread_id = ? AND hidden = 1 AND status = 'busy'"""
_COPY_RUN = """
    INSERT INTO runs (run_id, thread_id, owner, agent, turn, status, claims, config, created_at,
        started_at, ended_at, error_code, error_detail, interrupts, answers, attempt)
    SELECT ?, ?, owner, agent, turn, status, iif(?, claims, 'null'), iif(?, config, 'null'),
        created_at, started_at, ended_at, error_code, error_detail, interrupts, answers, attempt
    FROM runs WHERE run_id = ? AND ended_at IS NOT NULL"""
MESSAGES = """
    SELECT turn, position, role, content, metadata, messages.created_at
    FROM runs JOIN messages USING (thread_id, turn) WHERE runs.run_id = ? ORDER BY position"""
_WAITING = "SELECT interrupted_run FROM threads WHERE thread_id = ?"
_LET_WAIT = "UPDATE threads SET interrupted_run = ? WHERE thread_id = ?"
_CUT_RUN = """
    UPDATE runs SET status = 'cancelled', error_code = NULL, error_detail = NULL,
        interrupts = NULL, answers = NULL
    WHERE run_id = ? RETURNING thread_id, turn"""
_CUT_MESSAGES = "DELETE FROM messages WHERE thread_id = ? AND turn = ? AND position > 0"
LAST = "SELECT turn, status FROM runs WHERE thread_id = ? ORDER BY turn DESC LIMIT 1"
_REVEAL = """
    UPDATE threads SET hidden = 0, status = ?, next_turn = ?, updated_at = ?,
        name = (SELECT name FROM threads AS source WHERE source.thread_id = ?)
    WHERE thread_id = ? AND hidden = 1 AND status = 'busy'"""


class _Ids(NamedTuple):
    """A run's, in the source and in the copy."""

    old: str
    new: str


def look(
    connection: sqlite3.Connection, owner: str, copy: ThreadCopy
) -> tuple[ThreadCopy, JsonObject]:
    """What there is to copy, and the metadata."""
    source = connection.execute(_SOURCE, (copy.source_id, owner)).fetchone()
    if source is None:
        raise no_thread()
    stamp, busy = _stamp(connection, copy)
    agent, metadata = source
    ended = connection.execute(ENDED, (copy.source_id,))
    runs = {run_id: str(uuid7()) for (run_id,) in ended}
    return replace(copy, agent=agent, runs=runs, busy=busy, stamp=stamp), from_json(metadata)


def begin_copy(
    connection: sqlite3.Connection,
    owner: str,
    copy: ThreadCopy,
    metadata: JsonObject,
    idempotency: Idempotency | None,
) -> ThreadCopy:
    moment = now()
    if idempotency and (made := find_made(connection, owner, idempotency, moment)):
        return ThreadCopy(copy.source_id, made.thread_id, replayed=True)
    row = (copy.thread_id, owner, copy.agent, to_text(metadata), moment, moment)
    if not connection.execute(_INSERT, row).rowcount:
        raise IdTaken("The thread_id is taken")
    return copy


def _stamp(connection: sqlite3.Connection, copy: ThreadCopy) -> tuple[str, bool]:
    found = connection.execute(_STAMP, (copy.source_id,)).fetchone()
    if found is None:
        raise no_thread()
    return str(found[0]), bool(found[1])


def copy_turns(
    connection: sqlite3.Connection,
    copy: ThreadCopy,
    runs: Sequence[tuple[str, str]],
    *,
    resumable: bool,
) -> None:
    """With `resumable`, the run of the source that waits for an answer waits in the copy, too."""
    if not connection.execute(_HOLD, (now(), copy.thread_id)).rowcount:
        raise copy_lost()
    found = connection.execute(_WAITING, (copy.source_id,)).fetchone()
    waiting = found[0] if found and resumable else None
    for ids in map(_Ids._make, runs):
        _copy_turn(connection, copy.thread_id, ids, waits=ids.old == waiting)


def _copy_turn(connection: sqlite3.Connection, thread_id: str, ids: _Ids, *, waits: bool) -> None:
    if not connection.execute(_COPY_RUN, (ids.new, thread_id, waits, waits, ids.old)).rowcount:
        return  # it has been resumed meanwhile
    if waits:
        connection.execute(_LET_WAIT, (ids.new, thread_id))
    rows = [
        (thread_id, turn, position, str(uuid7()), ids.new, *rest)
        for turn, position, *rest in connection.execute(MESSAGES, (ids.old,))
    ]
    connection.executemany(INSERT_MESSAGE, rows)


def reveal(
    connection: sqlite3.Connection,
    owner: str,
    copy: ThreadCopy,
    point: CopyPoint | None,
    *,
    unchanged: bool,
    idempotency: Idempotency | None,
) -> Thread:
    moment = now()
    if idempotency and (made := find_made(connection, owner, idempotency, moment)):
        return get_thread(connection, owner, made.thread_id)
    if _stamp(connection, copy) != (copy.stamp, False) and unchanged:
        raise ThreadBusy("The thread has a run that has not ended")
    if point is not None and point.part == "question":
        connection.executemany(
            _CUT_MESSAGES, connection.execute(_CUT_RUN, (point.run_id,)).fetchall()
        )
    turn, last = connection.execute(LAST, (copy.thread_id,)).fetchone() or (0, None)
    (waiting,) = connection.execute(_WAITING, (copy.thread_id,)).fetchone() or (None,)
    status = status_of(last, waits=waiting is not None)
    revealed = (status, turn + 1, moment, copy.source_id, copy.thread_id)
    if not connection.execute(_REVEAL, revealed).rowcount:
        raise copy_lost()
    if idempotency:
        remember(connection, owner, idempotency, Made(copy.thread_id, None), moment)
    return get_thread(connection, owner, copy.thread_id)
