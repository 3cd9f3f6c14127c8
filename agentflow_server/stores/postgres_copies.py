"""Copies of threads: SQL for PostgreSQL.

A copy is a hidden thread that is `busy` as long as somebody fills it: whoever is going to delete
what a crash left behind takes that away first.
"""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Sequence
from dataclasses import replace

from pydantic_core import from_json
from uuid_utils import uuid7

from agentflow_server.errors import IdTaken, ThreadBusy
from agentflow_server.models import CopyPoint, Idempotency, JsonObject, Thread, ThreadCopy
from agentflow_server.stores.copies import copy_lost, status_of
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.stores.postgres_idempotency import find_made, remember
from agentflow_server.stores.postgres_threads import IS_BUSY, Cursor, get_thread
from agentflow_server.stores.rows import now, to_text
from agentflow_server.stores.rules import Made, no_thread

_SOURCE = "SELECT agent, metadata FROM threads WHERE thread_id = %s AND owner = %s AND NOT hidden"
# A run that begins takes a turn; one that is resumed was the interrupted one, and ends later.
_STAMP = f"""
    SELECT concat_ws(' ', next_turn, (
        SELECT concat(run_id, ended_at) FROM runs WHERE run_id = interrupted_run)), {IS_BUSY}
    FROM threads WHERE thread_id = %s AND NOT hidden"""
ENDED = "SELECT run_id FROM runs WHERE thread_id = %s AND ended_at IS NOT NULL ORDER BY turn"
_INSERT = """
    INSERT INTO threads (thread_id, owner, status, agent, metadata, created_at, updated_at, hidden)
    VALUES (%s, %s, 'busy', %s, %s, %s, %s, true) ON CONFLICT (thread_id) DO NOTHING"""
_HOLD = """
    UPDATE threads SET updated_at = %s WHERE thread_id = %s AND hidden AND status = 'busy'"""
# One statement, so that a run is copied as it was at one moment: one that is resumed meanwhile is
# either there with its question or not at all.
_COPY = """
    WITH ids AS (
        SELECT old, new, coalesce(old = (
            SELECT interrupted_run FROM threads WHERE thread_id = %(source_id)s AND %(resumable)s
        ), false) AS waits
        FROM unnest(%(old)s::text[], %(new)s::text[]) AS ids (old, new)
    ), copied AS (
        INSERT INTO runs (run_id, thread_id, owner, agent, turn, status, claims, config,
            created_at, started_at, ended_at, error_code, error_detail, interrupts, answers,
            attempt)
        SELECT new, %(thread_id)s, owner, agent, turn, status,
            CASE WHEN waits THEN claims ELSE 'null' END, CASE WHEN waits THEN config ELSE 'null' END,
            created_at, started_at, ended_at, error_code, error_detail, interrupts, answers,
            attempt
        FROM ids JOIN runs ON run_id = old WHERE ended_at IS NOT NULL
        RETURNING run_id AS new
    ), let_wait AS (
        UPDATE threads SET interrupted_run = new FROM copied JOIN ids USING (new)
        WHERE threads.thread_id = %(thread_id)s AND waits
    )
    INSERT INTO messages
        (thread_id, turn, position, message_id, run_id, role, content, metadata, created_at)
    SELECT %(thread_id)s, messages.turn, position, gen_random_uuid()::text, new, role, content,
        metadata, messages.created_at
    FROM copied JOIN ids USING (new) JOIN runs ON runs.run_id = old
    JOIN messages ON messages.thread_id = runs.thread_id AND messages.turn = runs.turn"""
_CUT = """
    WITH cut AS (
        UPDATE runs SET status = 'cancelled', error_code = NULL, error_detail = NULL,
            interrupts = NULL, answers = NULL
        WHERE run_id = %s RETURNING thread_id, turn
    )
    DELETE FROM messages USING cut
    WHERE messages.thread_id = cut.thread_id AND messages.turn = cut.turn AND position > 0"""
LAST = """
    SELECT turn, runs.status, interrupted_run IS NOT NULL
    FROM threads LEFT JOIN runs USING (thread_id) WHERE thread_id = %s
    ORDER BY turn DESC LIMIT 1"""
_REVEAL = """
    UPDATE threads SET hidden = false, status = %s, next_turn = %s, updated_at = %s,
        name = (SELECT name FROM threads AS source WHERE source.thread_id = %s)
    WHERE thread_id = %s AND hidden AND status = 'busy' RETURNING 1"""


async def look(
    connection: Connection, owner: str, copy: ThreadCopy
) -> tuple[ThreadCopy, JsonObject]:
    """What there is to copy, and the metadata."""
    async with connection.pipeline():
        source = await connection.execute(_SOURCE, (copy.source_id, owner))
        # Before the runs: one that ends in between is then seen as a change.
        stamp = await connection.execute(_STAMP, (copy.source_id,))
        ended = await connection.execute(ENDED, (copy.source_id,))
    found = await source.fetchone()
    if found is None:
        raise no_thread()
    agent, metadata = found
    state, busy = await _read_stamp(stamp)
    runs = {run_id: str(uuid7()) for (run_id,) in await ended.fetchall()}
    return replace(copy, agent=agent, runs=runs, busy=busy, stamp=state), from_json(metadata)


async def _read_stamp(stamp: Cursor) -> tuple[str, bool]:
    row = await stamp.fetchone()
    if row is None:
        raise no_thread()
    return str(row[0]), bool(row[1])


async def begin_copy(
    connection: Connection,
    owner: str,
    copy: ThreadCopy,
    metadata: JsonObject,
    idempotency: Idempotency | None,
) -> ThreadCopy:
    moment = now()
    async with transaction(connection):
        if idempotency and (made := await find_made(connection, owner, idempotency, moment)):
            return ThreadCopy(copy.source_id, made.thread_id, replayed=True)
        row = (copy.thread_id, owner, copy.agent, to_text(metadata), moment, moment)
        inserted = await connection.execute(_INSERT, row)
    if not inserted.rowcount:
        raise IdTaken("The thread_id is taken")
    return copy


async def copy_turns(
    connection: Connection,
    copy: ThreadCopy,
    runs: Sequence[tuple[str, str]],
    *,
    resumable: bool,
) -> None:
    """With `resumable`, the run of the source that waits for an answer waits in the copy, too."""
    values = {
        "source_id": copy.source_id,
        "thread_id": copy.thread_id,
        "resumable": resumable,
        "old": [old for old, _ in runs],
        "new": [new for _, new in runs],
    }
    async with transaction(connection):
        held = await connection.execute(_HOLD, (now(), copy.thread_id))
        if not held.rowcount:
            raise copy_lost()
        await connection.execute(_COPY, values)


async def reveal(
    connection: Connection,
    owner: str,
    copy: ThreadCopy,
    point: CopyPoint | None,
    *,
    unchanged: bool,
    idempotency: Idempotency | None,
) -> Thread:
    moment = now()
    async with transaction(connection):
        if idempotency and (made := await find_made(connection, owner, idempotency, moment)):
            return await get_thread(connection, owner, made.thread_id)
        stamp = await _read_stamp(await connection.execute(_STAMP, (copy.source_id,)))
        if unchanged and stamp != (copy.stamp, False):
            raise ThreadBusy("The thread has a run that has not ended")
        if point is not None and point.part == "question":
            await connection.execute(_CUT, (point.run_id,))
        if not await _reveal(connection, copy, moment):
            raise copy_lost()
        if idempotency:
            made = Made(copy.thread_id, None)
            await remember(connection, owner, idempotency, made, moment)
        return await get_thread(connection, owner, copy.thread_id)


async def _reveal(connection: Connection, copy: ThreadCopy, moment: int) -> bool:
    last = await (await connection.execute(LAST, (copy.thread_id,))).fetchone()
    turn, status, waits = last or (None, None, False)
    values = (status_of(status, waits=waits), (turn or 0) + 1, moment)
    revealed = await connection.execute(_REVEAL, (*values, copy.source_id, copy.thread_id))
    return await revealed.fetchone() is not None
