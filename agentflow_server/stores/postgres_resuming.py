"""Runs that go on later: interrupted, taken over, or put back. SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

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
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.stores.postgres_lines import HAS_ROOM, lock_line
from agentflow_server.stores.postgres_run_lists import find_active
from agentflow_server.stores.rows import now, read_interrupts, to_text
from agentflow_server.stores.rules import (
    InterruptPages,
    describe_resumption,
    lease_lost,
    match_answer,
    no_run,
)

_FIND = """
    SELECT runs.status, runs.interrupts, runs.answers, interrupted_run IS NOT DISTINCT FROM run_id
    FROM runs JOIN threads USING (thread_id)
    WHERE run_id = %s AND thread_id = %s AND threads.owner = %s AND NOT hidden"""
_RESUME = f"""
    WITH room AS (SELECT %(claim)s AND {HAS_ROOM} AS is_there)
    UPDATE runs SET status = CASE WHEN is_there THEN 'running' ELSE 'pending' END,
        lease = CASE WHEN is_there THEN %(lease)s END, answers = %(answers)s,
        webhook = coalesce(%(webhook)s, webhook), interrupts = NULL, ended_at = NULL
    FROM room WHERE run_id = %(run_id)s"""
_OCCUPY = """
    UPDATE threads SET status = 'busy', interrupted_run = NULL, updated_at = %s
    WHERE thread_id = %s"""
PAGE = """
    SELECT run_id, threads.thread_id, runs.agent, interrupts, ended_at
    FROM threads JOIN runs ON run_id = interrupted_run
    WHERE threads.owner = %s AND interrupted_run IS NOT NULL AND NOT hidden
        AND (ended_at, run_id) < (%s, %s)
    ORDER BY ended_at DESC, run_id DESC LIMIT %s"""
PAGE_OF_ALL = """
    SELECT run_id, threads.thread_id, runs.agent, interrupts, ended_at, threads.owner
    FROM threads JOIN runs ON run_id = interrupted_run
    WHERE interrupted_run IS NOT NULL AND NOT hidden AND (ended_at, run_id) < (%s, %s)
    ORDER BY ended_at DESC, run_id DESC LIMIT %s"""
_ASKER = """
    SELECT owner FROM threads WHERE thread_id = %s AND interrupted_run = %s AND NOT hidden"""
# Events that are being stored under the old lease are waited for.
_LOCK_RUN = "SELECT 1 FROM runs WHERE run_id = %s FOR NO KEY UPDATE"
_TAKE_OVER = "UPDATE runs SET lease = %s, attempt = attempt + 1 WHERE run_id = %s AND lease = %s"
_PUT_BACK = """
    UPDATE runs SET status = 'pending', lease = NULL, attempt = attempt + 1
    WHERE run_id = %s AND lease = %s RETURNING run_id"""
_TOUCH = "UPDATE threads SET updated_at = %s WHERE thread_id = %s"


async def resume_run(
    connection: Connection,
    owner: str,
    thread_id: str,
    run_id: str,
    answer: Answer,
    *,
    claim: bool,
    per_owner: int | None,
) -> ResumedRun:
    async with transaction(connection):
        await lock_line(connection, thread_id, per_owner=per_owner)
        found = await connection.execute(_FIND, (run_id, thread_id, owner))
        row = await found.fetchone()
        if row is None:
            raise no_run()
        status, interrupts, answers, waits = row
        if status != "interrupted" or not waits:
            raise NotInterrupted("The run does not wait for an answer")
        earlier = [] if answers is None else from_json(answers)
        given = [*earlier, match_answer(read_interrupts(interrupts), answer)]
        values = {
            "thread_id": thread_id,
            "run_id": run_id,
            "claim": claim,
            "per_owner": per_owner,
            "lease": make_lease(),
            "answers": to_text(given),
            "webhook": answer.webhook,
        }
        await connection.execute(_RESUME, values)
        await connection.execute(_OCCUPY, (now(), thread_id))
        resumed = await find_active(connection, run_id)
        assert resumed is not None  # noqa: S101 – locked, and its question was never forgotten
        return describe_resumption(resumed)


async def list_interrupts(
    connection: Connection, owner: str, *, limit: int, cursor: str | None = None
) -> Page[PendingInterrupt]:
    pages = InterruptPages(owner)
    found = await connection.execute(PAGE, (owner, *pages.begin(cursor), limit + 1))
    return pages.read(await found.fetchall(), limit)


async def list_all_interrupts(
    connection: Connection, *, limit: int, cursor: str | None = None
) -> Page[OwnedInterrupt]:
    pages = InterruptPages()
    found = await connection.execute(PAGE_OF_ALL, (*pages.begin(cursor), limit + 1))
    return pages.read_owned(await found.fetchall(), limit)


async def find_asker(connection: Connection, thread_id: str, run_id: str) -> str | None:
    row = await (await connection.execute(_ASKER, (thread_id, run_id))).fetchone()
    return None if row is None else str(row[0])


async def take_over(connection: Connection, active: ActiveRun) -> ActiveRun:
    run_id = active.run.run_id
    async with transaction(connection):
        await connection.execute(_LOCK_RUN, (run_id,))
        taken = await connection.execute(_TAKE_OVER, (make_lease(), run_id, active.lease))
        found = await find_active(connection, run_id)
        if not taken.rowcount or found is None:
            raise lease_lost()
        return found


async def put_back(connection: Connection, active: ActiveRun) -> None:
    run = active.run
    async with transaction(connection):
        await lock_line(connection, run.thread_id)
        put = await connection.execute(_PUT_BACK, (run.run_id, active.lease))
        if await put.fetchone() is None:
            raise lease_lost()
        await connection.execute(_TOUCH, (now(), run.thread_id))
