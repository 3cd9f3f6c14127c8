"""How runs begin and end: SQL for SQLite. Every function runs inside a transaction of the caller's."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from agentflow_server.errors import (
    IdempotencyMismatch,
    IdTaken,
    NotFound,
    ThreadBusy,
    WrongAgent,
)
from agentflow_server.interfaces.leases import lease_after, make_lease
from agentflow_server.models import (
    ActiveRun,
    Event,
    Idempotency,
    Message,
    NewRun,
    RunOutcome,
    StartedRun,
    Stop,
)
from agentflow_server.stores.rows import (
    event_row,
    message_row,
    now,
    read_active,
    to_microseconds,
    to_text,
)
from agentflow_server.stores.rules import (
    THREAD_STATUS,
    Made,
    describe_start,
    lease_lost,
    no_thread,
)
from agentflow_server.stores.sqlite_delays import find_delayed_turn
from agentflow_server.stores.sqlite_idempotency import find_made, remember
from agentflow_server.stores.sqlite_messages import INSERT_EVENT, INSERT_MESSAGE
from agentflow_server.stores.sqlite_run_lists import GET_ACTIVE
from agentflow_server.stores.sqlite_stopping import FORGET_TURN, settle, stop_all
from agentflow_server.stores.sqlite_threads import IS_BUSY
from agentflow_server.stores.sqlite_webhooks import leave_delivery

GET_THREAD = f"""
    SELECT agent, next_turn, {IS_BUSY} FROM threads
    WHERE thread_id = ? AND owner = ? AND hidden = 0"""
_INSERT = """
    INSERT INTO runs (run_id, thread_id, owner, agent, turn, status, lease, claims, config,
        created_at, started_at, start_after, request_id, traceparent, webhook)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_TAKE_TURN = """
    UPDATE threads SET agent = ?, next_turn = ?, updated_at = ?,
        status = CASE WHEN ? THEN status ELSE 'busy' END,
        interrupted_run = CASE WHEN ? = 'running' THEN NULL ELSE interrupted_run END
    WHERE thread_id = ?"""
NEXT_PENDING = """
    SELECT run_id, owner FROM runs WHERE thread_id = ? AND status = 'pending' AND start_after IS NULL
        AND NOT EXISTS (SELECT 1 FROM runs WHERE thread_id = ? AND status = 'running')
    ORDER BY turn LIMIT 1"""
RUNNING_OF_OWNER = "SELECT count(*) FROM runs WHERE owner = ? AND status = 'running'"
_CLAIM = """
    UPDATE runs SET status = 'running', lease = ?, started_at = coalesce(started_at, ?)
    WHERE run_id = ?"""
_GO_ON = """
    UPDATE threads SET interrupted_run = NULL
    WHERE thread_id = ? AND interrupted_run IS NOT NULL"""
_HOLDS_LEASE = "SELECT 1 FROM runs WHERE run_id = ? AND lease = ?"
_END = """
    UPDATE runs SET status = ?, ended_at = ?, error_code = ?, error_detail = ?, interrupts = ?,
        lease = NULL, stopping = NULL
    WHERE run_id = ? AND lease = ?"""
_END_TURN = f"""
    UPDATE threads SET status = CASE WHEN {IS_BUSY} THEN 'busy' ELSE ? END,
        interrupted_run = ?, updated_at = ?
    WHERE thread_id = ?"""
_LAST_POSITION = "SELECT max(position) FROM messages WHERE thread_id = ? AND turn = ?"
WAITING = """
    SELECT thread_id FROM runs WHERE status = 'pending' AND start_after IS NULL AND NOT EXISTS (
        SELECT 1 FROM runs AS other
        WHERE other.thread_id = runs.thread_id AND other.status = 'running')
    GROUP BY thread_id ORDER BY min(created_at)"""


def start_run(
    connection: sqlite3.Connection,
    owner: str,
    new: NewRun,
    idempotency: Idempotency | None,
    *,
    claim: bool,
    per_owner: int | None,
) -> StartedRun:
    thread = connection.execute(GET_THREAD, (new.thread_id, owner)).fetchone()
    if thread is None:
        raise no_thread()
    moment = now()
    if idempotency and (made := find_made(connection, owner, idempotency, moment)):
        return _replay(connection, new.thread_id, made)
    agent, turn, busy = thread
    if agent is None or new.agent_is_default:
        agent = agent or new.agent
    elif agent != new.agent:
        raise WrongAgent("The thread belongs to another agent")
    stopping: str | None = None
    cancelled: Sequence[str] = ()
    if busy and new.on_busy == "reject":
        raise ThreadBusy("The thread has a run that has not ended")
    if busy and new.on_busy != "enqueue":
        how: Stop = "rollback" if new.on_busy == "rollback" else "cancel"
        stopping, cancelled = stop_all(connection, new.thread_id, how)
        busy = stopping is not None
        settle(connection, new.thread_id)
    waits = busy or not claim or new.start_after is not None
    waits = waits or not has_room(connection, owner, per_owner)
    started = _insert_run(
        connection, owner, new, agent=agent, turn=turn, moment=moment, waits=waits
    )
    if idempotency:
        remember(connection, owner, idempotency, Made(new.thread_id, new.run_id), moment)
    return replace(started, stopping=stopping, cancelled=cancelled)


def _replay(connection: sqlite3.Connection, thread_id: str, made: Made) -> StartedRun:
    if made.thread_id != thread_id or made.run_id is None:
        raise IdempotencyMismatch("The idempotency key was used for a different request")
    row = connection.execute(GET_ACTIVE, (made.run_id,)).fetchone()
    if row is None:
        raise NotFound("The message was rolled back")
    known = read_active(row)
    return StartedRun(known.run, known.message, replayed=True)


def _insert_run(
    connection: sqlite3.Connection,
    owner: str,
    new: NewRun,
    *,
    agent: str,
    turn: int,
    moment: int,
    waits: bool,
) -> StartedRun:
    lease = None if waits else make_lease()
    status = "pending" if waits else "running"
    next_turn = turn + 1
    if new.start_after is not None:
        turn, next_turn = find_delayed_turn(connection, new.thread_id), turn
    row = (new.run_id, new.thread_id, owner, agent, turn, status, lease)
    texts = (to_text(new.claims), to_text(new.config))
    start_after = None if new.start_after is None else to_microseconds(new.start_after)
    times = (moment, None if waits else moment, start_after)
    asked_by = (new.origin.request_id, new.origin.traceparent, new.webhook)
    started = describe_start(owner, new, agent=agent, turn=turn, moment=moment, lease=lease)
    try:
        connection.execute(_INSERT, (*row, *texts, *times, *asked_by))
        connection.execute(INSERT_MESSAGE, message_row(turn, 0, started.message))
    except sqlite3.IntegrityError as exc:
        raise IdTaken("The run_id or the message_id is taken") from exc
    connection.execute(
        _TAKE_TURN, (agent, next_turn, moment, new.start_after is not None, status, new.thread_id)
    )
    return started


def has_room(connection: sqlite3.Connection, owner: str, per_owner: int | None) -> bool:
    if per_owner is None:
        return True
    (running,) = connection.execute(RUNNING_OF_OWNER, (owner,)).fetchone()
    return bool(running < per_owner)


def claim_next(
    connection: sqlite3.Connection, per_owner: int | None, lease: str | None
) -> ActiveRun | None:
    lease = lease or make_lease()
    for (thread_id,) in connection.execute(WAITING).fetchall():
        if claimed := claim_run(connection, thread_id, per_owner, lease):
            return claimed
    return None


def claim_run(
    connection: sqlite3.Connection, thread_id: str, per_owner: int | None, lease: str
) -> ActiveRun | None:
    found = connection.execute(NEXT_PENDING, (thread_id, thread_id)).fetchone()
    if found is None or not has_room(connection, found[1], per_owner):
        return None
    pending = found[:1]
    connection.execute(_CLAIM, (lease, now(), *pending))
    connection.execute(_GO_ON, (thread_id,))
    return read_active(connection.execute(GET_ACTIVE, pending).fetchone())


def append_events(
    connection: sqlite3.Connection, active: ActiveRun, events: Sequence[Event]
) -> None:
    held = connection.execute(_HOLDS_LEASE, (active.run.run_id, active.lease)).fetchone()
    if held is None:
        raise lease_lost()
    insert_events(connection, active, events)


def insert_events(
    connection: sqlite3.Connection, active: ActiveRun, events: Sequence[Event]
) -> None:
    run_id = active.run.run_id
    connection.executemany(INSERT_EVENT, [event_row(run_id, event) for event in events])


def finish_run(
    connection: sqlite3.Connection,
    active: ActiveRun,
    outcome: RunOutcome,
    messages: Sequence[Message],
    events: Sequence[Event],
    *,
    claim_next: bool,
    per_owner: int | None,
) -> ActiveRun | None:
    run, moment = active.run, now()
    error = (outcome.error.code, outcome.error.detail) if outcome.error else (None, None)
    asked = to_text([i.model_dump() for i in outcome.interrupts]) if outcome.interrupts else None
    ended = (outcome.status, moment, *error, asked, run.run_id, active.lease)
    if not connection.execute(_END, ended).rowcount:
        raise lease_lost()
    _store_answer(connection, active, messages)
    if outcome.forget:
        connection.execute(FORGET_TURN, (run.thread_id, active.turn))
    insert_events(connection, active, events)
    if run.webhook is not None:
        leave_delivery(connection, run.run_id)
    following = None
    if claim_next:
        lease = lease_after(active.lease)
        following = claim_run(connection, run.thread_id, per_owner, lease)
    status = THREAD_STATUS.get(outcome.status, "idle")
    waiting = run.run_id if asked is not None and following is None else None
    connection.execute(_END_TURN, (status, waiting, moment, run.thread_id))
    return following


def _store_answer(
    connection: sqlite3.Connection, active: ActiveRun, messages: Sequence[Message]
) -> None:
    last = 0
    if active.answers:
        turn = (active.run.thread_id, active.turn)
        (last,) = connection.execute(_LAST_POSITION, turn).fetchone()
    rows = [message_row(active.turn, n, message) for n, message in enumerate(messages, last + 1)]
    try:
        connection.executemany(INSERT_MESSAGE, rows)
    except sqlite3.IntegrityError as exc:
        raise IdTaken("The message_id of an answer is taken") from exc
