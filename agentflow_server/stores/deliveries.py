"""Rows of deliveries ↔ models, whatever the database."""

from collections.abc import Sequence

from agentflow_server.models import Delivery, Message, RunError, Undelivered
from agentflow_server.stores.rows import Row, read_interrupts, to_datetime

DELIVERY_COLUMNS = """
    deliveries.delivery_id, deliveries.url, deliveries.thread_id, deliveries.run_id, runs.agent,
    deliveries.status, deliveries.ended_at, deliveries.error_code, deliveries.error_detail,
    deliveries.interrupts, deliveries.attempt, deliveries.lease, runs.turn,
    deliveries.last_position"""
UNDELIVERED_COLUMNS = """
    delivery_id, host, thread_id, run_id, status, ended_at, attempt, due_at, failure"""


def read_delivery(row: Row, messages: Sequence[Message] | None) -> Delivery:
    delivery_id, url, thread_id, run_id, agent, status, ended_at, code, detail = row[:9]
    interrupts, attempt, lease, *_ = row[9:]
    return Delivery(
        delivery_id=delivery_id,
        url=url,
        thread_id=thread_id,
        run_id=run_id,
        agent=agent,
        status=status,
        ended_at=to_datetime(ended_at),
        error=None if code is None else RunError(code=code, detail=detail),
        interrupts=read_interrupts(interrupts),
        messages=messages,
        attempt=attempt,
        lease=lease,
    )


def read_undelivered(row: Row) -> Undelivered:
    delivery_id, host, thread_id, run_id, status, ended_at, attempt, due_at, failure = row
    return Undelivered(
        delivery_id=delivery_id,
        host=host,
        thread_id=thread_id,
        run_id=run_id,
        status=status,
        ended_at=to_datetime(ended_at),
        attempt=attempt,
        due_at=None if due_at is None else to_datetime(due_at),
        failure=failure,
    )
