"""How a run begins: SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg.errors import UniqueViolation

from agentflow_server.errors import (
    IdempotencyMismatch,
    IdTaken,
    NotFound,
    ThreadBusy,
    WrongAgent,
)
from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import Idempotency, NewRun, StartedRun, Stop
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.stores.postgres_delays import DELAYED_TURN
from agentflow_server.stores.postgres_idempotency import find_made, remember
from agentflow_server.stores.postgres_lines import HAS_ROOM, lock_line, run_locked
from agentflow_server.stores.postgres_run_lists import find_active
from agentflow_server.stores.postgres_stopping import stop_all
from agentflow_server.stores.postgres_threads import IS_BUSY, get_thread
from agentflow_server.stores.rows import now, to_microseconds, to_text
from agentflow_server.stores.rules import Made, describe_start, no_thread

# Nothing is stored unless the thread takes the run; the row returned says what speaks against it.
_START = f"""
    WITH thread AS (
        SELECT thread_id, agent, next_turn, {IS_BUSY} AS busy FROM threads
        WHERE thread_id = %(thread_id)s AND owner = %(owner)s AND NOT hidden
    ), accepted AS (
        SELECT *, coalesce(agent, %(agent)s) AS chosen,
            busy OR %(delayed)s OR NOT %(claim)s OR NOT {HAS_ROOM} AS waits,
            CASE WHEN %(delayed)s THEN {DELAYED_TURN} ELSE next_turn END AS turn
        FROM thread
        WHERE (agent IS NULL OR agent = %(agent)s OR %(agent_is_default)s)
            AND NOT (busy AND %(reject)s)
    ), run AS (
        INSERT INTO runs (run_id, thread_id, owner, agent, turn, status, lease, claims, config,
            created_at, started_at, start_after, request_id, traceparent, webhook)
        SELECT %(run_id)s, thread_id, %(owner)s, chosen, turn,
            CASE WHEN waits THEN 'pending' ELSE 'running' END,
            CASE WHEN waits THEN NULL ELSE %(lease)s END,
            %(claims)s, %(config)s, %(now)s,
            CASE WHEN waits THEN NULL ELSE %(now)s END, %(start_after)s::bigint,
            %(request_id)s, %(traceparent)s, %(webhook)s
        FROM accepted
    ), question AS (
        INSERT INTO messages
            (thread_id, turn, position, message_id, run_id, role, content, metadata, created_at)
        SELECT thread_id, turn, 0, %(message_id)s, %(run_id)s, 'user', %(content)s,
            %(metadata)s, %(now)s
        FROM accepted
    ), turn_taken AS (
        UPDATE threads SET agent = chosen, updated_at = %(now)s,
            next_turn = threads.next_turn + CASE WHEN %(delayed)s THEN 0 ELSE 1 END,
            status = CASE WHEN %(delayed)s THEN status ELSE 'busy' END,
            interrupted_run = CASE WHEN waits THEN interrupted_run END
        FROM accepted WHERE threads.thread_id = accepted.thread_id
    )
    SELECT thread.agent, turn, chosen, waits
    FROM thread LEFT JOIN accepted USING (thread_id)"""


async def start_run(
    connection: Connection,
    owner: str,
    new: NewRun,
    idempotency: Idempotency | None,
    *,
    claim: bool,
    per_owner: int | None,
) -> StartedRun:
    moment = now()
    values = {**_describe(owner, new, moment), "claim": claim, "per_owner": per_owner}
    if idempotency is None and new.on_busy in ("enqueue", "reject"):
        return await _start(connection, owner, new, values)
    async with transaction(connection):
        if idempotency and (made := await find_made(connection, owner, idempotency, moment)):
            return await _replay(connection, owner, new.thread_id, made)
        stopping: str | None = None
        cancelled: Sequence[str] = ()
        if new.on_busy in ("interrupt", "rollback"):
            how: Stop = "rollback" if new.on_busy == "rollback" else "cancel"
            await lock_line(connection, new.thread_id, per_owner=per_owner)
            stopping, cancelled = await stop_all(connection, owner, new.thread_id, how)
        started = await _start(connection, owner, new, values)
        if idempotency:
            made = Made(new.thread_id, new.run_id)
            await remember(connection, owner, idempotency, made, moment)
        return replace(started, stopping=stopping, cancelled=cancelled)


def _describe(owner: str, new: NewRun, moment: int) -> Mapping[str, Any]:
    return {
        "thread_id": new.thread_id,
        "owner": owner,
        "agent": new.agent,
        "agent_is_default": new.agent_is_default,
        "reject": new.on_busy == "reject",
        "delayed": new.start_after is not None,
        "start_after": None if new.start_after is None else to_microseconds(new.start_after),
        "request_id": new.origin.request_id,
        "traceparent": new.origin.traceparent,
        "webhook": new.webhook,
        "run_id": new.run_id,
        "lease": make_lease(),
        "claims": to_text(new.claims),
        "config": to_text(new.config),
        "now": moment,
        "message_id": new.message_id,
        "content": to_text(new.content),
        "metadata": to_text(new.metadata),
    }


async def _start(
    connection: Connection, owner: str, new: NewRun, values: Mapping[str, Any]
) -> StartedRun:
    try:
        row = await run_locked(connection, _START, values)
    except UniqueViolation as exc:
        raise IdTaken("The run_id or the message_id is taken") from exc
    if row is None:
        raise no_thread()
    agent, turn, chosen, waits = row
    if chosen is None:
        if agent not in (None, new.agent) and not new.agent_is_default:
            raise WrongAgent("The thread belongs to another agent")
        raise ThreadBusy("The thread has a run that has not ended")
    lease = None if waits else values["lease"]
    return describe_start(owner, new, agent=chosen, turn=turn, moment=values["now"], lease=lease)


async def _replay(connection: Connection, owner: str, thread_id: str, made: Made) -> StartedRun:
    if made.thread_id != thread_id or made.run_id is None:
        await get_thread(connection, owner, thread_id)
        raise IdempotencyMismatch("The idempotency key was used for a different request")
    known = await find_active(connection, made.run_id)
    if known is None:
        raise NotFound("The message was rolled back")
    return StartedRun(known.run, known.message, replayed=True)
