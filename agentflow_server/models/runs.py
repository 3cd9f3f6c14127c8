"""Turns of agents, from the request to the outcome, and what happens meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from agentflow_server.models.frozen import Frozen, JsonObject
from agentflow_server.models.threads import Content, Interrupt, Message

RunStatus = Literal["pending", "running", "success", "error", "interrupted", "cancelled", "timeout"]
EventType = Literal[
    "run.started",
    "message.delta",
    "message.completed",
    "tool.started",
    "tool.completed",
    "interrupt",
    "custom",
    "run.resumed",
    "run.completed",
    "run.failed",
    "run.cancelled",
]
OnBusy = Literal["enqueue", "reject", "interrupt", "rollback"]


Stop = Literal["cancel", "rollback"]
"""How a run is stopped: what it has said so far is kept, or its turn is forgotten."""


class RunError(Frozen):
    """Why a run did not succeed: a stable code and a constant text, never the exception's."""

    code: str
    detail: str


class Run(Frozen):
    """One turn of an agent on a thread.

    `start_after` is set while a delayed run waits for its time; `queue_position` is a pending
    run's place in its thread's line, 1 for the next one. `webhook` is told when the run has ended.
    """

    run_id: str
    thread_id: str
    agent: str
    status: RunStatus
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: RunError | None = None
    interrupts: list[Interrupt] = Field(default=[])
    attempt: int = 1
    start_after: datetime | None = None
    queue_position: int | None = None
    webhook: str | None = None


class OwnedRun(Frozen):
    """A run as operators see it."""

    owner: str
    run: Run


class PendingInterrupt(Frozen):
    """An interrupted run whose questions can still be answered."""

    thread_id: str
    run_id: str
    agent: str
    interrupts: list[Interrupt]
    asked_at: datetime


class OwnedInterrupt(PendingInterrupt):
    """The same for somebody who may answer what the runs of others ask."""

    owner: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run; `seq` counts from 1 without gaps.

    `made_at` (seconds since 1970) is known in the process where it happened, and not stored.
    """

    run_id: str
    seq: int
    type: EventType
    data: JsonObject
    made_at: float | None = field(default=None, compare=False)


TERMINAL_EVENTS: frozenset[EventType] = frozenset({"run.completed", "run.failed", "run.cancelled"})
"""Nothing follows them. After an `interrupt` a run goes on when it is answered."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that asked for a run: its id, and how traces call it (W3C Trace Context)."""

    request_id: str | None = None
    traceparent: str | None = None


UNKNOWN_ORIGIN = Origin()


@dataclass(frozen=True, slots=True)
class NewRun:
    """A message that was accepted and the turn it asks for. Ids are made by the caller (uuid7).

    With `agent_is_default` nobody asked for `agent`: a thread that has an agent keeps it. A run
    with `start_after` waits in no line before that time.
    """

    run_id: str
    thread_id: str
    agent: str
    message_id: str
    content: Content
    metadata: JsonObject
    claims: JsonObject
    config: JsonObject
    on_busy: OnBusy = "enqueue"
    agent_is_default: bool = False
    start_after: datetime | None = None
    origin: Origin = UNKNOWN_ORIGIN
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run as the worker that holds its lease sees it; `message` is the one it answers.

    `last_seq` is the number of its newest stored event, 0 for a run that has just been claimed.
    `answers` has one map (interrupt_id → value) for each time it was interrupted and resumed.
    `stopping` is set when somebody wants it stopped.
    """

    run: Run
    owner: str
    turn: int
    lease: str
    message: Message
    claims: JsonObject
    config: JsonObject
    last_seq: int = 0
    answers: Sequence[JsonObject] = ()
    stopping: Stop | None = None
    origin: Origin = UNKNOWN_ORIGIN


@dataclass(frozen=True, slots=True)
class StartedRun:
    """What `Store.start_run` did.

    `active` is set when the thread was free and the caller now holds the run's lease.
    `replayed` says that an earlier request with the same idempotency key made the run.
    `stopping` names a running run that has to be stopped for it, `cancelled` are pending ones
    that have ended for it.
    """

    run: Run
    message: Message
    active: ActiveRun | None = None
    replayed: bool = False
    stopping: str | None = None
    cancelled: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ResumedRun:
    """What `Store.resume_run` did; `last_seq` is the number of the run's newest event.

    `active` is set when the caller now holds the run's lease; else the run waits in line.
    """

    run: Run
    last_seq: int
    active: ActiveRun | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a human says to an interrupted run: one `value`, or one for each interrupt_id.

    A `webhook` takes the place of the run's.
    """

    value: Any = None
    by_id: JsonObject | None = None
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended: its last status and why. With `forget` its messages are deleted, the
    question included; `interrupts` are what an interrupted one waits for."""

    status: RunStatus
    error: RunError | None = None
    interrupts: Sequence[Interrupt] = ()
    forget: bool = False


@dataclass(frozen=True, slots=True)
class QueueState:
    """Runs in the database, of all replicas.

    `ready` are the pending ones that could start now: their time has come and their thread is
    free. `oldest_seconds` is how long the oldest of those has been waiting, 0 if there is none.
    """

    running: int
    pending: int
    ready: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class ThreadCopy:
    """A copy of a thread that nobody finds before it is complete.

    `runs` are those of the source that had ended, in order, with their ids in the copy. `busy` says
    whether another one had not ended, `stamp` is what the store knows the source's state by.
    `replayed` says that an earlier request with the same idempotency key made `thread_id`.
    """

    source_id: str
    thread_id: str
    agent: str | None = None
    runs: Mapping[str, str] = field(default_factory=dict)
    busy: bool = False
    stamp: str = ""
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class CopyPoint:
    """How far a copy goes: to the turn of `run_id`, and how much of that turn is in it."""

    run_id: str
    part: Literal["nothing", "question", "everything"]
