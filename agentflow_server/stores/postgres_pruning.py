"""Deleting what has had its time: SQL for PostgreSQL."""

from datetime import datetime

from agentflow_server.stores import postgres_idempotency
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.stores.postgres_credentials import prune_revocations
from agentflow_server.stores.rows import now, to_microseconds

# What another server is deleting at the moment need not be deleted twice. An array, so that the
# planner never thinks of reading all events because it cannot know how few runs there are.
_PRUNE = """
    WITH pruned AS (
        SELECT run_id FROM runs WHERE {which} AND has_events AND ended_at < %s
        ORDER BY ended_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
    ), deleted AS (
        DELETE FROM run_events WHERE run_id = ANY (ARRAY(SELECT run_id FROM pruned))
    )
    UPDATE runs SET has_events = false WHERE run_id = ANY (ARRAY(SELECT run_id FROM pruned))"""
ENDED = _PRUNE.format(which="status <> 'interrupted'")
# A question that nobody can answer any more.
LEFT_BEHIND = _PRUNE.format(
    which="""status = 'interrupted' AND NOT EXISTS (
            SELECT 1 FROM threads
            WHERE threads.thread_id = runs.thread_id AND interrupted_run = run_id)"""
)
_TICKETS = """
    DELETE FROM tickets WHERE digest IN (
        SELECT digest FROM tickets WHERE expires_at <= %s LIMIT %s FOR UPDATE SKIP LOCKED)"""


async def prune(connection: Connection, *, events_before: datetime | None, limit: int) -> int:
    async with transaction(connection):
        await postgres_idempotency.prune(connection, now(), limit=limit)
        await prune_revocations(connection)
        await connection.execute(_TICKETS, (now(), limit))
    if events_before is None:
        return 0
    moment = to_microseconds(events_before)
    pruned = (await connection.execute(ENDED, (moment, limit))).rowcount
    if pruned < limit:
        pruned += (await connection.execute(LEFT_BEHIND, (moment, limit - pruned))).rowcount
    return pruned
