"""Deliveries of webhooks: SQL for SQLite. Every function runs inside a transaction of the
caller's."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime

from uuid_utils import uuid7

from agentflow_server.interfaces.leases import make_lease
from agentflow_server.models import Delivery, Message, Undelivered
from agentflow_server.stores.deliveries import (
    DELIVERY_COLUMNS,
    UNDELIVERED_COLUMNS,
    read_delivery,
    read_undelivered,
)
from agentflow_server.stores.rows import (
    MESSAGE_COLUMNS,
    from_seconds,
    now,
    read_messages,
    to_microseconds,
    to_text,
)

_LEAVE = """
    INSERT INTO webhook_deliveries (delivery_id, run_id, thread_id, url, status, ended_at,
        error_code, error_detail, interrupts, last_position, due_at)
    SELECT ?, run_id, thread_id, webhook, status, ended_at, error_code, error_detail, interrupts,
        (SELECT coalesce(max(position), 0) FROM messages
            WHERE messages.thread_id = runs.thread_id AND messages.turn = runs.turn),
        ended_at
    FROM runs WHERE run_id = ? AND webhook IS NOT NULL"""
FORGET = "DELETE FROM webhook_deliveries WHERE thread_id = ?"
DUE = """
    SELECT delivery_id FROM webhook_deliveries
    WHERE due_at <= ? AND host NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at LIMIT 1"""
_CLAIM = f"""
    UPDATE webhook_deliveries SET attempt = attempt + 1, lease = ?, due_at = ?
    WHERE delivery_id = ({DUE}) RETURNING delivery_id"""
_GET = f"""
    SELECT {DELIVERY_COLUMNS} FROM webhook_deliveries AS deliveries JOIN runs USING (run_id)
    WHERE delivery_id = ?"""
_SAID = "FROM messages WHERE thread_id = ? AND turn = ? AND position BETWEEN 1 AND ?"
_SIZE = f"""
    SELECT coalesce(sum(length(CAST(content AS BLOB)) + length(CAST(metadata AS BLOB))), 0)
    {_SAID}"""
_MESSAGES = f"SELECT {MESSAGE_COLUMNS} {_SAID} ORDER BY position"
NEXT_DUE = """
    SELECT due_at FROM webhook_deliveries
    WHERE due_at IS NOT NULL AND host NOT IN (SELECT value FROM json_each(?))
    ORDER BY due_at LIMIT 1"""
_END = "DELETE FROM webhook_deliveries WHERE delivery_id = ? AND lease = ?"
_POSTPONE = """
    UPDATE webhook_deliveries SET due_at = ?, failure = ?, lease = NULL
    WHERE delivery_id = ? AND lease = ?"""
_LIST = f"SELECT {UNDELIVERED_COLUMNS} FROM webhook_deliveries ORDER BY ended_at DESC LIMIT ?"
_RETRY = """
    UPDATE webhook_deliveries SET due_at = ?, attempt = 0
    WHERE delivery_id = ? AND lease IS NULL"""
_PRUNE = "DELETE FROM webhook_deliveries WHERE due_at IS NULL AND ended_at < ?"


def leave_delivery(connection: sqlite3.Connection, run_id: str) -> None:
    """What a run that has just ended, and whose messages are stored, has to tell its webhook."""
    connection.execute(_LEAVE, (str(uuid7()), run_id))


def claim_delivery(
    connection: sqlite3.Connection, *, seconds: float, max_bytes: int, skip: Collection[str] = ()
) -> Delivery | None:
    moment = now()
    values = (make_lease(), moment + from_seconds(seconds), moment, to_text(list(skip)))
    claimed = connection.execute(_CLAIM, values).fetchone()
    if claimed is None:
        return None
    row = connection.execute(_GET, claimed).fetchone()
    return read_delivery(row, _find_messages(connection, row[2], *row[-2:], max_bytes=max_bytes))


def _find_messages(
    connection: sqlite3.Connection, thread_id: str, turn: int, last: int, *, max_bytes: int
) -> Sequence[Message] | None:
    (size,) = connection.execute(_SIZE, (thread_id, turn, last)).fetchone()
    if size > max_bytes:
        return None
    return read_messages(connection.execute(_MESSAGES, (thread_id, turn, last)))


def next_delivery(connection: sqlite3.Connection, *, skip: Collection[str] = ()) -> float | None:
    row = connection.execute(NEXT_DUE, (to_text(list(skip)),)).fetchone()
    return None if row is None else (row[0] - now()) / 1_000_000


def end_delivery(connection: sqlite3.Connection, delivery: Delivery) -> None:
    connection.execute(_END, (delivery.delivery_id, delivery.lease))


def postpone_delivery(
    connection: sqlite3.Connection, delivery: Delivery, failure: str, *, seconds: float | None
) -> None:
    due_at = None if seconds is None else now() + from_seconds(seconds)
    connection.execute(_POSTPONE, (due_at, failure, delivery.delivery_id, delivery.lease))


def list_deliveries(connection: sqlite3.Connection, *, limit: int) -> Sequence[Undelivered]:
    return [read_undelivered(row) for row in connection.execute(_LIST, (limit,))]


def retry_delivery(connection: sqlite3.Connection, delivery_id: str) -> bool:
    return connection.execute(_RETRY, (now(), delivery_id)).rowcount > 0


def prune_deliveries(connection: sqlite3.Connection, before: datetime) -> int:
    return connection.execute(_PRUNE, (to_microseconds(before),)).rowcount
