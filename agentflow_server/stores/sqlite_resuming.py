"""Runs that go on later: interrupted, or taken over. SQL for SQLite, inside a transaction of the
caller's."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from agentflow_server.errors import NotInterrupted
from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import ActiveRun, Answer, Page, PendingInterrupt
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.rows import now, read_active, read_interrupts, to_datetime, to_text
from agentflow_server.stores.rules import lease_lost, match_answer, no_run
from agentflow_server.stores.sqlite_run_lists import GET_ACTIVE

_FIND = """
    SELECT runs.status, runs.interrupts, runs.answers, interrupted_run = run_id
    FROM runs JOIN threads USING (thread_id)
    WHERE run_id = ? AND thread_id = ? AND threads.owner = ? AND hidden = 0"""
_RESUME = """
    UPDATE runs SET status = 'running', lease = ?, answers = ?, webhook = coalesce(?, webhook),
        interrupts = NULL, ended_at = NULL
    WHERE run_id = ?"""
_OCCUPY = """
    UPDATE threads SET status = 'busy', interrupted_run = NULL, updated_at = ? WHERE thread_id = ?"""
PAGE = """
    SELECT runs.run_id, thread_id, runs.agent, interrupts, ended_at FROM threads
    JOIN runs USING (thread_id)
    WHERE threads.owner = ? AND hidden = 0 AND interrupted_run = run_id
        AND (ended_at, run_id) < (?, ?)
    ORDER BY ended_at DESC, run_id DESC LIMIT ?"""
_TAKE_OVER = "UPDATE runs SET lease = ?, attempt = attempt + 1 WHERE run_id = ? AND lease = ?"


def resume_run(
    connection: sqlite3.Connection, owner: str, thread_id: str, run_id: str, answer: Answer
) -> ActiveRun:
    found = connection.execute(_FIND, (run_id, thread_id, owner)).fetchone()
    if found is None:
        raise no_run()
    status, interrupts, answers, waits = found
    if status != "interrupted" or not waits:
        raise NotInterrupted("The run does not wait for an answer")
    matched = match_answer(read_interrupts(interrupts), answer)
    given = [*([] if answers is None else from_json(answers)), matched]
    connection.execute(_RESUME, (make_lease(), to_text(given), answer.webhook, run_id))
    connection.execute(_OCCUPY, (now(), thread_id))
    return read_active(connection.execute(GET_ACTIVE, (run_id,)).fetchone())


def list_interrupts(
    connection: sqlite3.Connection, owner: str, *, limit: int, cursor: str | None = None
) -> Page[PendingInterrupt]:
    listing = f"interrupts:{owner}"
    before: Sequence[Any] = (2**63 - 1, "")
    if cursor is not None:
        before = decode_cursor(listing, cursor, int, str)
    rows = connection.execute(PAGE, (owner, *before, limit + 1)).fetchall()
    found = [
        PendingInterrupt(
            thread_id=thread_id,
            run_id=run_id,
            agent=agent,
            interrupts=read_interrupts(interrupts),
            asked_at=to_datetime(ended_at),
        )
        for run_id, thread_id, agent, interrupts, ended_at in rows[:limit]
    ]
    last = rows[limit - 1] if len(rows) > limit else None
    next_cursor = None if last is None else encode_cursor(listing, last[4], last[0])
    return Page(data=found, next_cursor=next_cursor)


def take_over(connection: sqlite3.Connection, active: ActiveRun) -> ActiveRun:
    run_id = active.run.run_id
    if not connection.execute(_TAKE_OVER, (make_lease(), run_id, active.lease)).rowcount:
        raise lease_lost()
    return read_active(connection.execute(GET_ACTIVE, (run_id,)).fetchone())
