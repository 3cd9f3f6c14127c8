"""Runs that go on later: interrupted, or taken over. SQL for PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from agentflow_server.errors import NotInterrupted
from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import ActiveRun, Answer, Page, PendingInterrupt
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.stores.postgres_lines import lock_line
from agentflow_server.stores.postgres_run_lists import find_active
from agentflow_server.stores.rows import now, read_interrupts, to_datetime, to_text
from agentflow_server.stores.rules import lease_lost, match_answer, no_run

_FIND = """
    SELECT runs.status, runs.interrupts, runs.answers, interrupted_run IS NOT DISTINCT FROM run_id
    FROM runs JOIN threads USING (thread_id)
    WHERE run_id = %s AND thread_id = %s AND threads.owner = %s AND NOT hidden"""
_RESUME = """
    UPDATE runs SET status = 'running', lease = %s, answers = %s, webhook = coalesce(%s, webhook),
        interrupts = NULL, ended_at = NULL
    WHERE run_id = %s"""
_OCCUPY = """
    UPDATE threads SET status = 'busy', interrupted_run = NULL, updated_at = %s
    WHERE thread_id = %s"""
PAGE = """
    SELECT run_id, threads.thread_id, runs.agent, interrupts, ended_at
    FROM threads JOIN runs ON run_id = interrupted_run
    WHERE threads.owner = %s AND interrupted_run IS NOT NULL AND NOT hidden
        AND (ended_at, run_id) < (%s, %s)
    ORDER BY ended_at DESC, run_id DESC LIMIT %s"""
# Events that are being stored under the old lease are waited for.
_LOCK_RUN = "SELECT 1 FROM runs WHERE run_id = %s FOR NO KEY UPDATE"
_TAKE_OVER = "UPDATE runs SET lease = %s, attempt = attempt + 1 WHERE run_id = %s AND lease = %s"


async def resume_run(
    connection: Connection, owner: str, thread_id: str, run_id: str, answer: Answer
) -> ActiveRun:
    async with transaction(connection):
        await lock_line(connection, thread_id)
        found = await connection.execute(_FIND, (run_id, thread_id, owner))
        row = await found.fetchone()
        if row is None:
            raise no_run()
        status, interrupts, answers, waits = row
        if status != "interrupted" or not waits:
            raise NotInterrupted("The run does not wait for an answer")
        earlier = [] if answers is None else from_json(answers)
        given = [*earlier, match_answer(read_interrupts(interrupts), answer)]
        values = (make_lease(), to_text(given), answer.webhook, run_id)
        await connection.execute(_RESUME, values)
        await connection.execute(_OCCUPY, (now(), thread_id))
        resumed = await find_active(connection, run_id)
        assert resumed is not None  # noqa: S101 – locked, and its question was never forgotten
        return resumed


async def list_interrupts(
    connection: Connection, owner: str, *, limit: int, cursor: str | None = None
) -> Page[PendingInterrupt]:
    listing = f"interrupts:{owner}"
    before: Sequence[Any] = (2**63 - 1, "")
    if cursor is not None:
        before = decode_cursor(listing, cursor, int, str)
    rows = await (await connection.execute(PAGE, (owner, *before, limit + 1))).fetchall()
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


async def take_over(connection: Connection, active: ActiveRun) -> ActiveRun:
    run_id = active.run.run_id
    async with transaction(connection):
        await connection.execute(_LOCK_RUN, (run_id,))
        taken = await connection.execute(_TAKE_OVER, (make_lease(), run_id, active.lease))
        found = await find_active(connection, run_id)
        if not taken.rowcount or found is None:
            raise lease_lost()
        return found
