"""Deliveries of webhooks: SQL for PostgreSQL."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Collection, Sequence
from datetime import datetime

from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import Delivery, Message, Undelivered
from agentflow_server.stores.deliveries import (
    DELIVERY_COLUMNS,
    UNDELIVERED_COLUMNS,
    read_delivery,
    read_undelivered,
)
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.rows import (
    MESSAGE_COLUMNS,
    from_seconds,
    read_messages,
    to_microseconds,
)

_NOW = "(extract(epoch FROM now()) * 1000000)::bigint"

# A part of the statement that ends runs; `ended` are they, {last} is the position of the newest
# message.
LEAVE = f"""
    INSERT INTO webhook_deliveries (delivery_id, run_id, thread_id, url, status, ended_at,
        error_code, error_detail, interrupts, last_position, due_at)
    SELECT gen_random_uuid()::text, run_id, thread_id, webhook, status, ended_at,
        error_code, error_detail, interrupts, {{last}}, {_NOW}
    FROM ended WHERE webhook IS NOT NULL"""
TOLD_OF = """
    runs.run_id, runs.thread_id, runs.webhook, runs.status, runs.ended_at, runs.error_code,
    runs.error_detail, runs.interrupts"""
"""What `ended` has to return of its runs."""

FORGET = "DELETE FROM webhook_deliveries WHERE thread_id = %s"
CLAIM = f"""
    WITH due AS (
        SELECT delivery_id FROM webhook_deliveries
        WHERE due_at <= {_NOW} AND host <> ALL(%(skip)s::text[])
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE webhook_deliveries AS deliveries SET attempt = deliveries.attempt + 1,
        lease = %(lease)s, due_at = {_NOW} + %(duration)s
    FROM due, runs
    WHERE deliveries.delivery_id = due.delivery_id AND runs.run_id = deliveries.run_id
    RETURNING {DELIVERY_COLUMNS}"""
_SAID = "FROM messages WHERE thread_id = %s AND turn = %s AND position BETWEEN 1 AND %s"
_SIZE = f"""
    SELECT coalesce(sum(octet_length(content) + octet_length(metadata)), 0) {_SAID}"""
_MESSAGES = f"SELECT {MESSAGE_COLUMNS} {_SAID} ORDER BY position"
NEXT_DUE = f"""
    SELECT due_at - {_NOW} FROM webhook_deliveries
    WHERE due_at IS NOT NULL AND host <> ALL(%s::text[]) ORDER BY due_at LIMIT 1"""
_END = "DELETE FROM webhook_deliveries WHERE delivery_id = %s AND lease = %s"
_POSTPONE = f"""
    UPDATE webhook_deliveries SET due_at = {_NOW} + %s::bigint, failure = %s, lease = NULL
    WHERE delivery_id = %s AND lease = %s"""
_LIST = f"SELECT {UNDELIVERED_COLUMNS} FROM webhook_deliveries ORDER BY ended_at DESC LIMIT %s"
_RETRY = f"""
    UPDATE webhook_deliveries SET due_at = {_NOW}, attempt = 0
    WHERE delivery_id = %s AND lease IS NULL"""
_PRUNE = "DELETE FROM webhook_deliveries WHERE due_at IS NULL AND ended_at < %s"


async def claim_delivery(
    connection: Connection, *, seconds: float, max_bytes: int, skip: Collection[str] = ()
) -> Delivery | None:
    values = {"skip": list(skip), "lease": make_lease(), "duration": from_seconds(seconds)}
    row = await (await connection.execute(CLAIM, values)).fetchone()
    if row is None:
        return None
    return read_delivery(
        row, await _find_messages(connection, row[2], *row[-2:], max_bytes=max_bytes)
    )


async def _find_messages(
    connection: Connection, thread_id: str, turn: int, last: int, *, max_bytes: int
) -> Sequence[Message] | None:
    found = await connection.execute(_SIZE, (thread_id, turn, last))
    size = await found.fetchone()
    assert size is not None  # noqa: S101 – an aggregate
    if size[0] > max_bytes:
        return None
    found = await connection.execute(_MESSAGES, (thread_id, turn, last))
    return read_messages(await found.fetchall())


async def next_delivery(connection: Connection, *, skip: Collection[str] = ()) -> float | None:
    row = await (await connection.execute(NEXT_DUE, (list(skip),))).fetchone()
    return None if row is None else int(row[0]) / 1_000_000


async def end_delivery(connection: Connection, delivery: Delivery) -> None:
    await connection.execute(_END, (delivery.delivery_id, delivery.lease))


async def postpone_delivery(
    connection: Connection, delivery: Delivery, failure: str, *, seconds: float | None
) -> None:
    wait = None if seconds is None else from_seconds(seconds)
    values = (wait, failure, delivery.delivery_id, delivery.lease)
    await connection.execute(_POSTPONE, values)


async def list_deliveries(connection: Connection, *, limit: int) -> Sequence[Undelivered]:
    found = await connection.execute(_LIST, (limit,))
    return [read_undelivered(row) for row in await found.fetchall()]


async def retry_delivery(connection: Connection, delivery_id: str) -> bool:
    return (await connection.execute(_RETRY, (delivery_id,))).rowcount > 0


async def prune_deliveries(connection: Connection, before: datetime) -> int:
    return (await connection.execute(_PRUNE, (to_microseconds(before),))).rowcount
