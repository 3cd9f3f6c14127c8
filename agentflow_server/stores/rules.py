"""What every store of ours decides alike, whatever its database."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from agentflow_server.errors import InvalidRequest, LeaseLost, NotFound
from agentflow_server.models import (
    ActiveRun,
    Answer,
    Interrupt,
    JsonObject,
    Message,
    NewRun,
    OwnedInterrupt,
    Page,
    PendingInterrupt,
    ResumedRun,
    Run,
    RunStatus,
    StartedRun,
    ThreadStatus,
)
from agentflow_server.models.approvals import EXPECTED, find_decision, is_approval
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.rows import Row, read_interrupts, to_datetime

Kind = Literal["read", "write"]
Observe = Callable[[Kind, float], None]
"""Is told how many seconds an operation took, its time in a queue included."""

VALID_FOR = 24 * 60 * 60 * 1_000_000
"""Microseconds for which an idempotency key is remembered."""

MAX_FILTERS = 32
"""SQLite bounds the depth of an expression; a page needs few conditions."""

THREAD_STATUS: dict[RunStatus, ThreadStatus] = {
    "error": "error",
    "timeout": "error",
    "interrupted": "interrupted",
}
"""How a thread stands after its last run; `idle` unless said here."""


class Made(NamedTuple):
    """What the first request with an idempotency key made."""

    thread_id: str
    run_id: str | None


def no_thread() -> NotFound:
    return NotFound("There is no such thread")


def no_run() -> NotFound:
    return NotFound("There is no such run")


def lease_lost() -> LeaseLost:
    return LeaseLost("The run has ended, or another worker owns it now")


def describe_start(
    owner: str, new: NewRun, *, agent: str, turn: int, moment: int, lease: str | None
) -> StartedRun:
    """What was stored for `new`; without a lease it waits."""
    created_at = to_datetime(moment)
    run = Run(
        run_id=new.run_id,
        thread_id=new.thread_id,
        agent=agent,
        status="running" if lease else "pending",
        created_at=created_at,
        started_at=created_at if lease else None,
        start_after=new.start_after,
        webhook=new.webhook,
    )
    message = Message(
        message_id=new.message_id,
        thread_id=new.thread_id,
        run_id=new.run_id,
        role="user",
        content=new.content,
        created_at=created_at,
        metadata=new.metadata,
    )
    if lease is None:
        return StartedRun(run, message)
    active = ActiveRun(run, owner, turn, lease, message, new.claims, new.config, origin=new.origin)
    return StartedRun(run, message, active)


def describe_resumption(found: ActiveRun) -> ResumedRun:
    """What became of a run that was answered, as it is `found` then."""
    if found.run.status == "running":
        return ResumedRun(found.run, found.last_seq, found)
    # It was the last of its thread that was claimed: whatever else waits there comes later.
    return ResumedRun(found.run.model_copy(update={"queue_position": 1}), found.last_seq)


class InterruptPages:
    """Questions of one owner, or of all, and how far a caller has read."""

    def __init__(self, owner: str | None = None) -> None:
        # No owner's list is called like that of all.
        self._listing = "all interrupts" if owner is None else f"interrupts:{owner}"

    def begin(self, cursor: str | None) -> Sequence[Any]:
        """What comes next is before this. Raises InvalidRequest."""
        if cursor is None:
            return (2**63 - 1, "")
        return decode_cursor(self._listing, cursor, int, str)

    def read(self, rows: Sequence[Row], limit: int) -> Page[PendingInterrupt]:
        return Page(
            data=[PendingInterrupt(**_interrupt(row)) for row in rows[:limit]],
            next_cursor=self._next(rows, limit),
        )

    def read_owned(self, rows: Sequence[Row], limit: int) -> Page[OwnedInterrupt]:
        return Page(
            data=[OwnedInterrupt(owner=row[5], **_interrupt(row)) for row in rows[:limit]],
            next_cursor=self._next(rows, limit),
        )

    def _next(self, rows: Sequence[Row], limit: int) -> str | None:
        if len(rows) <= limit:
            return None
        last = rows[limit - 1]
        return encode_cursor(self._listing, last[4], last[0])


def _interrupt(row: Row) -> dict[str, Any]:
    return {
        "run_id": row[0],
        "thread_id": row[1],
        "agent": row[2],
        "interrupts": read_interrupts(row[3]),
        "asked_at": to_datetime(row[4]),
    }


def match_answer(interrupts: Sequence[Interrupt], answer: Answer) -> JsonObject:
    """interrupt_id → value. Raises InvalidRequest."""
    asked = [interrupt.interrupt_id for interrupt in interrupts]
    if answer.by_id is not None:
        if answer.by_id.keys() != set(asked):
            raise InvalidRequest("answers: expected one for each interrupt_id of the run")
        given = answer.by_id
    elif len(asked) == 1:
        given = {asked[0]: answer.value}
    else:
        raise InvalidRequest(
            f"value: the run asks {len(asked)} questions; send answers, one for each interrupt_id"
        )
    for interrupt in interrupts:
        if is_approval(interrupt.value) and find_decision(given[interrupt.interrupt_id]) is None:
            raise InvalidRequest(f"an approval: {EXPECTED}")
    return given
