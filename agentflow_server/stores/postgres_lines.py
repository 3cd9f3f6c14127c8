"""The line of runs of a thread, and whose turn it is: SQL for PostgreSQL.

Whoever changes the line locks the thread first, in a statement of its own: the next one then sees
everything that was done before. Both are sent together and are one transaction, so that what
happens in every turn costs one round trip.
"""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Mapping
from typing import Any

from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import ActiveRun
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.rows import ACTIVE_COLUMNS, Row, now, read_active

_LOCK_THREAD = "SELECT 1 FROM threads WHERE thread_id = %s FOR NO KEY UPDATE"
# Who counts an owner's runs keeps others from starting one meanwhile.
_LOCK_OWNER = """
    SELECT pg_advisory_xact_lock(hashtextextended(owner, 1)) FROM threads WHERE thread_id = %s"""

# A run of the thread itself does not count: there is none, or the statement ends it.
HAS_ROOM = """(%(per_owner)s::bigint IS NULL OR %(per_owner)s > (
    SELECT count(*) FROM runs WHERE status = 'running' AND thread_id <> %(thread_id)s
        AND owner = (SELECT owner FROM threads WHERE thread_id = %(thread_id)s)))"""
WAITS = """
    SELECT run_id FROM runs
    WHERE thread_id = %(thread_id)s AND status = 'pending' AND start_after IS NULL"""
CLAIM = """
    UPDATE runs SET status = 'running', lease = %(next_lease)s,
        started_at = coalesce(started_at, %(now)s)
    WHERE run_id = (SELECT run_id FROM next) RETURNING *"""
WITH_QUESTION = """
    LEFT JOIN messages ON messages.thread_id = runs.thread_id AND messages.turn = runs.turn
        AND messages.position = 0"""

# `runs` is then the one that was claimed, as ACTIVE_COLUMNS want it.
CLAIM_RUN = f"""
    WITH next AS (
        {WAITS} AND {HAS_ROOM} AND NOT EXISTS (
            SELECT 1 FROM runs WHERE thread_id = %(thread_id)s AND status = 'running')
        ORDER BY turn LIMIT 1
    ), gone_on AS (
        UPDATE threads SET interrupted_run = NULL
        WHERE thread_id = %(thread_id)s AND interrupted_run IS NOT NULL
            AND EXISTS (SELECT 1 FROM next)
    ), runs AS ({CLAIM})
    SELECT {ACTIVE_COLUMNS} FROM runs {WITH_QUESTION}"""
CLAIMABLE = """
    SELECT thread_id FROM runs WHERE status = 'pending' AND start_after IS NULL AND NOT EXISTS (
        SELECT 1 FROM runs AS other
        WHERE other.thread_id = runs.thread_id AND other.status = 'running')
    AND (%(per_owner)s::bigint IS NULL OR %(per_owner)s > (
        SELECT count(*) FROM runs AS other
        WHERE other.owner = runs.owner AND other.status = 'running'))
    GROUP BY thread_id ORDER BY min(created_at) LIMIT 8"""


async def lock_line(
    connection: Connection, thread_id: str, *, per_owner: int | None = None
) -> None:
    """Until the transaction ends. The owner always before the thread, so that no two who hold one
    of both wait for each other."""
    if per_owner is not None:
        await connection.execute(_LOCK_OWNER, (thread_id,))
    await connection.execute(_LOCK_THREAD, (thread_id,))


async def run_locked(
    connection: Connection, statement: str, values: Mapping[str, Any]
) -> Row | None:
    """The row of a statement on the line of the thread `thread_id`."""
    async with connection.pipeline():
        await lock_line(connection, values["thread_id"], per_owner=values.get("per_owner"))
        found = await connection.execute(statement, values)
    row: Row | None = await found.fetchone()
    return row


async def claim_run(
    connection: Connection, thread_id: str, per_owner: int | None, lease: str
) -> ActiveRun | None:
    values = {
        "thread_id": thread_id,
        "per_owner": per_owner,
        "next_lease": lease,
        "now": now(),
    }
    row = await run_locked(connection, CLAIM_RUN, values)
    return None if row is None else read_active(row)


async def claim_next(
    connection: Connection, per_owner: int | None, lease: str | None
) -> ActiveRun | None:
    lease = lease or make_lease()
    while True:
        found = await connection.execute(CLAIMABLE, {"per_owner": per_owner})
        threads = await found.fetchall()
        for (thread_id,) in threads:
            if claimed := await claim_run(connection, thread_id, per_owner, lease):
                return claimed
        if not threads:
            return None
        # Others were faster with all of them, but there may be more.
