"""Rows of the database ↔ models."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from agentflow_server.models import (
    ActiveRun,
    ApiKey,
    Event,
    Interrupt,
    Message,
    Origin,
    Revocation,
    Run,
    RunError,
    Thread,
)

Row = Sequence[Any]

THREAD_COLUMNS = """
    threads.thread_id, threads.name, threads.status, threads.metadata, threads.created_at,
    threads.updated_at, (SELECT interrupts FROM runs WHERE run_id = threads.interrupted_run)"""
RUN_COLUMNS = """
    runs.run_id, runs.thread_id, runs.agent, runs.status, runs.created_at, runs.started_at,
    runs.ended_at, runs.error_code, runs.error_detail, runs.interrupts, runs.attempt,
    runs.start_after, runs.webhook"""
_RUN_WIDTH = 13
MESSAGE_COLUMNS = """
    messages.message_id, messages.thread_id, messages.run_id, messages.role, messages.content,
    messages.created_at, messages.metadata"""
ACTIVE_COLUMNS = f"""
    {RUN_COLUMNS}, runs.owner, runs.turn, runs.lease, runs.claims, runs.config, runs.answers,
    runs.stopping, runs.request_id, runs.traceparent,
    (SELECT coalesce(max(seq), 0) FROM run_events WHERE run_events.run_id = runs.run_id),
    {MESSAGE_COLUMNS}"""
# Of a run in line. One that has begun before is there since its thread was touched, or earlier.
WAITS_SINCE = """
    CASE WHEN started_at IS NULL THEN runs.created_at
    ELSE (SELECT updated_at FROM threads WHERE threads.thread_id = runs.thread_id) END"""

# One call for a whole list: half the price of building models one by one.
_MESSAGES = TypeAdapter(list[Message])


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def to_microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def to_datetime(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)


def to_text(value: Any) -> str:
    """JSON; NaN and infinities, which it does not have, become null."""
    return to_json(value, inf_nan_mode="null").decode()


def read_thread(row: Row) -> Thread:
    thread_id, name, status, metadata, created_at, updated_at, interrupts = row
    return Thread(
        thread_id=thread_id,
        name=name,
        status=status,
        metadata=from_json(metadata),
        created_at=to_datetime(created_at),
        updated_at=to_datetime(updated_at),
        interrupts=read_interrupts(interrupts),
    )


def read_interrupts(text: str | None) -> list[Interrupt]:
    return [] if text is None else [Interrupt(**item) for item in from_json(text)]


def read_run(row: Row) -> Run:
    run_id, thread_id, agent, status, created_at, started_at, ended_at, code, detail = row[:9]
    interrupts, attempt, start_after, webhook = row[9:]
    return Run(
        run_id=run_id,
        thread_id=thread_id,
        agent=agent,
        status=status,
        created_at=to_datetime(created_at),
        started_at=None if started_at is None else to_datetime(started_at),
        ended_at=None if ended_at is None else to_datetime(ended_at),
        error=None if code is None else RunError(code=code, detail=detail),
        interrupts=read_interrupts(interrupts),
        attempt=attempt,
        start_after=None if start_after is None else to_datetime(start_after),
        webhook=webhook,
    )


def read_messages(rows: Iterable[Row]) -> list[Message]:
    return _MESSAGES.validate_python(
        [
            {
                "message_id": message_id,
                "thread_id": thread_id,
                "run_id": run_id,
                "role": role,
                "content": from_json(content),
                "created_at": to_datetime(created_at),
                "metadata": from_json(metadata),
            }
            for message_id, thread_id, run_id, role, content, created_at, metadata in rows
        ]
    )


def read_active(row: Row) -> ActiveRun:
    run, rest = row[:_RUN_WIDTH], row[_RUN_WIDTH:]
    owner, turn, lease, claims, config, answers, stopping, *origin, last_seq = rest[:10]
    return ActiveRun(
        run=read_run(run),
        owner=owner,
        turn=turn,
        lease=lease,
        message=read_messages([rest[10:]])[0],
        claims=from_json(claims),
        config=from_json(config),
        last_seq=last_seq,
        answers=() if answers is None else from_json(answers),
        stopping=stopping,
        origin=Origin(*origin),
    )


def read_event(row: Row) -> Event:
    run_id, seq, type_, data = row
    return Event(run_id, seq, type_, from_json(data))


def event_row(run_id: str, event: Event) -> Row:
    return run_id, event.seq, event.type, to_text(event.data)


def message_row(turn: int, position: int, message: Message) -> Row:
    return (
        message.thread_id,
        turn,
        position,
        message.message_id,
        message.run_id,
        message.role,
        to_text(message.content),
        to_text(message.metadata),
        to_microseconds(message.created_at),
    )


def read_api_key(row: Row) -> ApiKey:
    key_id, user_id, name, scopes, *times = row
    created_at, expires_at, revoked_at, last_used_at = (
        None if time is None else to_datetime(time) for time in times
    )
    assert created_at is not None  # noqa: S101 – NOT NULL
    return ApiKey(
        key_id=key_id,
        user_id=user_id,
        name=name,
        scopes=from_json(scopes),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=last_used_at,
    )


def read_revocation(row: Row) -> Revocation:
    token_id, issuer, user_id, at, expires_at = row
    return Revocation(
        at=at / 1_000_000,
        expires_at=expires_at / 1_000_000,
        token_id=token_id or None,
        issuer=issuer or None,
        user_id=user_id or None,
    )


def from_seconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
