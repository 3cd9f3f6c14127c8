"""Runs that go on later: interrupted, taken over, or put back. SQL for SQLite, inside a transaction
of the caller's."""

import sqlite3

from pydantic_core import from_json

from agentflow_server.errors import NotInterrupted
from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import (
    ActiveRun,
    Answer,
    OwnedInterrupt,
    Page,
    PendingInterrupt,
    ResumedRun,
)
from agentflow_server.stores.rows import now, read_active, read_interrupts, to_text
from agentflow_server.stores.rules import (
    InterruptPages,
    describe_resumption,
    lease_lost,
    match_answer,
    no_run,
)
from agentflow_server.stores.sqlite_run_lists import GET_ACTIVE
from agentflow_server.stores.sqlite_runs import has_room

_FIND = """
    SELECT runs.status, runs.interrupts, runs.answers, interrupted_run = run_id
    FROM runs JOIN threads USING (thread_id)
    WHERE run_id = ? AND thread_id = ? AND threads.owner = ? AND hidden = 0"""
_RESUME = """
    UPDATE runs SET status = ?, lease = ?, answers = ?, webhook = coalesce(?, webhook),
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
PAGE_OF_ALL = """
    SELECT runs.run_id, threads.thread_id, runs.agent, interrupts, ended_at, threads.owner
    FROM threads JOIN runs ON run_id = interrupted_run
    WHERE interrupted_run IS NOT NULL AND hidden = 0 AND (ended_at, run_id) < (?, ?)
    ORDER BY ended_at DESC, run_id DESC LIMIT ?"""
_ASKER = """
    SELECT owner FROM threads WHERE thread_id = ? AND interrupted_run = ? AND hidden = 0"""
_TAKE_OVER = "UPDATE runs SET lease = ?, attempt = attempt + 1 WHERE run_id = ? AND lease = ?"
_PUT_BACK = """
    UPDATE runs SET status = 'pending', lease = NULL, attempt = attempt + 1
    WHERE run_id = ? AND lease = ?"""
_TOUCH = "UPDATE threads SET updated_at = ? WHERE thread_id = ?"


def resume_run(
    connection: sqlite3.Connection,
    owner: str,
    thread_id: str,
    run_id: str,
    answer: Answer,
    *,
    claim: bool,
    per_owner: int | None,
) -> ResumedRun:
    found = connection.execute(_FIND, (run_id, thread_id, owner)).fetchone()
    if found is None:
        raise no_run()
    status, interrupts, answers, waits = found
    if status != "interrupted" or not waits:
        raise NotInterrupted("The run does not wait for an answer")
    matched = match_answer(read_interrupts(interrupts), answer)
    given = [*([] if answers is None else from_json(answers)), matched]
    begins = claim and has_room(connection, owner, per_owner)
    state = ("running", make_lease()) if begins else ("pending", None)
    connection.execute(_RESUME, (*state, to_text(given), answer.webhook, run_id))
    connection.execute(_OCCUPY, (now(), thread_id))
    return describe_resumption(read_active(connection.execute(GET_ACTIVE, (run_id,)).fetchone()))


def list_interrupts(
    connection: sqlite3.Connection, owner: str, *, limit: int, cursor: str | None = None
) -> Page[PendingInterrupt]:
    pages = InterruptPages(owner)
    found = connection.execute(PAGE, (owner, *pages.begin(cursor), limit + 1))
    return pages.read(found.fetchall(), limit)


def list_all_interrupts(
    connection: sqlite3.Connection, *, limit: int, cursor: str | None = None
) -> Page[OwnedInterrupt]:
    pages = InterruptPages()
    found = connection.execute(PAGE_OF_ALL, (*pages.begin(cursor), limit + 1))
    return pages.read_owned(found.fetchall(), limit)


def find_asker(connection: sqlite3.Connection, thread_id: str, run_id: str) -> str | None:
    row = connection.execute(_ASKER, (thread_id, run_id)).fetchone()
    return None if row is None else str(row[0])


def take_over(connection: sqlite3.Connection, active: ActiveRun) -> ActiveRun:
    run_id = active.run.run_id
    if not connection.execute(_TAKE_OVER, (make_lease(), run_id, active.lease)).rowcount:
        raise lease_lost()
    return read_active(connection.execute(GET_ACTIVE, (run_id,)).fetchone())


def put_back(connection: sqlite3.Connection, active: ActiveRun) -> None:
    run = active.run
    if not connection.execute(_PUT_BACK, (run.run_id, active.lease)).rowcount:
        raise lease_lost()
    connection.execute(_TOUCH, (now(), run.thread_id))
