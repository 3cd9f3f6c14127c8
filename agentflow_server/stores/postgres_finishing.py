"""What a run produces, and how it ends: SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.errors import UniqueViolation

from agentflow_server.errors import IdTaken
from agentflow_server.interfaces.leases import lease_after
from agentflow_server.models import ActiveRun, Event, Message, RunOutcome
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.postgres_lines import (
    CLAIM,
    HAS_ROOM,
    WAITS,
    WITH_QUESTION,
    run_locked,
)
from agentflow_server.stores.postgres_webhooks import LEAVE, TOLD_OF
from agentflow_server.stores.rows import ACTIVE_COLUMNS, now, read_active, to_microseconds, to_text
from agentflow_server.stores.rules import THREAD_STATUS, lease_lost

# A caller that was cancelled does not know whether his events were stored, and sends them again.
_INSERT_EVENTS = """
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT run_id, event.* FROM {holder},
        unnest(%(seqs)s::bigint[], %(types)s::text[], %(data)s::text[]) AS event
    ON CONFLICT (run_id, seq) DO NOTHING"""
_APPEND = f"""
    WITH held AS (
        SELECT run_id FROM runs WHERE run_id = %(run_id)s AND lease = %(lease)s FOR SHARE
    ), told AS ({_INSERT_EVENTS.format(holder="held")})
    SELECT 1 FROM held"""

_LAST = """
    cardinality(%(message_ids)s::text[]) + (
        SELECT coalesce(max(position), 0) FROM messages
        WHERE thread_id = %(thread_id)s AND turn = %(turn)s)"""
_FINISH = f"""
    WITH ended AS (
        UPDATE runs SET status = %(status)s, ended_at = %(now)s, error_code = %(error_code)s,
            error_detail = %(error_detail)s, interrupts = %(interrupts)s, lease = NULL,
            stopping = NULL
        WHERE run_id = %(run_id)s AND lease = %(lease)s RETURNING {TOLD_OF}
    ), answered AS (
        INSERT INTO messages
            (thread_id, turn, position, run_id, message_id, role, content, metadata, created_at)
        SELECT %(thread_id)s, %(turn)s, last + number, run_id, message_id, role, content, metadata,
            created_at
        FROM ended, (
            SELECT coalesce(max(position), 0) AS last FROM messages
            WHERE thread_id = %(thread_id)s AND turn = %(turn)s
        ) AS before, unnest(
            %(message_ids)s::text[], %(roles)s::text[], %(contents)s::text[],
            %(metadatas)s::text[], %(times)s::bigint[]
        ) WITH ORDINALITY AS answer (message_id, role, content, metadata, created_at, number)
        WHERE NOT %(forget)s
    ), forgotten AS (
        DELETE FROM messages WHERE thread_id = %(thread_id)s AND turn = %(turn)s AND %(forget)s
            AND EXISTS (SELECT 1 FROM ended)
    ), told AS ({_INSERT_EVENTS.format(holder="ended")}
    ), left_over AS ({LEAVE.format(last=_LAST)}
    ), next AS (
        {WAITS} AND %(claim_next)s AND EXISTS (SELECT 1 FROM ended) AND {HAS_ROOM}
        ORDER BY turn LIMIT 1
    ), claimed AS ({CLAIM}
    ), settled AS (
        UPDATE threads SET updated_at = %(now)s,
            status = CASE WHEN EXISTS ({WAITS}) THEN 'busy' ELSE %(thread_status)s END,
            interrupted_run = CASE WHEN %(interrupts)s::text IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM next) THEN %(run_id)s END
        WHERE thread_id = %(thread_id)s AND EXISTS (SELECT 1 FROM ended)
    )
    SELECT {ACTIVE_COLUMNS} FROM ended LEFT JOIN claimed AS runs ON true {WITH_QUESTION}"""


async def append_events(connection: Connection, active: ActiveRun, events: Sequence[Event]) -> None:
    values = {"run_id": active.run.run_id, "lease": active.lease, **_event_columns(events)}
    found = await connection.execute(_APPEND, values)
    if await found.fetchone() is None:
        raise lease_lost()


def _event_columns(events: Sequence[Event]) -> Mapping[str, Any]:
    return {
        "seqs": [event.seq for event in events],
        "types": [event.type for event in events],
        "data": [to_text(event.data) for event in events],
    }


async def finish_run(
    connection: Connection,
    active: ActiveRun,
    outcome: RunOutcome,
    messages: Sequence[Message],
    events: Sequence[Event],
    *,
    claim_next: bool,
    per_owner: int | None,
) -> ActiveRun | None:
    error = outcome.error
    asked = [interrupt.model_dump() for interrupt in outcome.interrupts]
    values = {
        "run_id": active.run.run_id,
        "lease": active.lease,
        "thread_id": active.run.thread_id,
        "turn": active.turn,
        "now": now(),
        "status": outcome.status,
        "error_code": None if error is None else error.code,
        "error_detail": None if error is None else error.detail,
        "interrupts": to_text(asked) if asked else None,
        "forget": outcome.forget,
        "claim_next": claim_next,
        "per_owner": per_owner,
        "next_lease": lease_after(active.lease),
        "thread_status": THREAD_STATUS.get(outcome.status, "idle"),
        **_message_columns(messages),
        **_event_columns(events),
    }
    try:
        row = await run_locked(connection, _FINISH, values)
    except UniqueViolation as exc:
        raise IdTaken("The message_id of an answer is taken") from exc
    if row is None:
        raise lease_lost()
    return None if row[0] is None else read_active(row)


def _message_columns(messages: Sequence[Message]) -> Mapping[str, Any]:
    return {
        "message_ids": [message.message_id for message in messages],
        "roles": [message.role for message in messages],
        "contents": [to_text(message.content) for message in messages],
        "metadatas": [to_text(message.metadata) for message in messages],
        "times": [to_microseconds(message.created_at) for message in messages],
    }
