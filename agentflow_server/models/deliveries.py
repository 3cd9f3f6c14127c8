"""What webhooks are told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agentflow_server.models.frozen import Frozen
from agentflow_server.models.runs import RunError, RunStatus
from agentflow_server.models.threads import Interrupt, Message


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a webhook is told about a run, as it was when it ended, under the lease of who tells.

    `messages` are what the agent has said so far, None if that is too much to be sent.
    """

    delivery_id: str
    url: str
    thread_id: str
    run_id: str
    agent: str
    status: RunStatus
    ended_at: datetime
    error: RunError | None
    interrupts: Sequence[Interrupt]
    messages: Sequence[Message] | None
    attempt: int
    lease: str


class Undelivered(Frozen):
    """A delivery as operators see it; `due_at` is null once it was given up."""

    delivery_id: str
    host: str
    thread_id: str
    run_id: str
    status: RunStatus
    ended_at: datetime
    attempt: int
    due_at: datetime | None
    failure: str | None
