"""What clients know: what they asked for, and what they were promised before the lights went out."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

Result = Literal["unknown", "accepted", "refused"]


@dataclass
class Sent:
    """A message of its own wording, so that it is found again. Times are of the test's clock."""

    owner: str
    thread_id: str
    content: str
    key: str | None
    on_busy: str
    delayed: bool
    at: float = field(default_factory=time.monotonic)
    acknowledged_at: float | None = None
    result: Result = "unknown"
    runs: set[str] = field(default_factory=set)


@dataclass
class Answered:
    """An answer to a run's question."""

    run_id: str
    interrupt_id: str
    value: str
    result: Result = "unknown"
    names_it: bool = True
    """Otherwise it answers whatever the run asks when it arrives."""


@dataclass
class Stopped:
    run_id: str
    action: str
    at: float = field(default_factory=time.monotonic)
    status: str | None = None
    """How the run had ended when it was acknowledged."""


@dataclass
class Journal:
    threads: dict[str, str] = field(default_factory=dict)
    """thread_id → owner, of all that were acknowledged."""
    deleting: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    """Asked for; and acknowledged."""
    sent: dict[str, Sent] = field(default_factory=dict)
    """content → what is known of it."""
    answered: list[Answered] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """run_id → the turn as it was answered to whoever waited."""
    events: dict[tuple[str, int], tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """(run_id, number) → type and data, as a stream showed it."""
    oddities: list[str] = field(default_factory=list)
    """Answers that no documentation promises."""
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
