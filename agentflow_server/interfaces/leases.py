"""Leases: who works on a run holds one, and every write of the run names it."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


def make_lease() -> str:
    return secrets.token_hex(8)


def lease_after(lease: str) -> str:
    """What the thread's next run gets when the end of this one claims it: whoever gets no answer
    knows what to look for."""
    return hashlib.sha256(lease.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class HeldLease:
    """While the row of `run_id` names `lease`, nobody else works on the run."""

    run_id: str
    lease: str = field(repr=False)


_held: ContextVar[HeldLease | None] = ContextVar("agentflow_held_lease", default=None)


@contextmanager
def holding(run_id: str, lease: str) -> Iterator[None]:
    """What is called inside, and the tasks that are begun there, find this lease."""
    token = _held.set(HeldLease(run_id, lease))
    try:
        yield
    finally:
        _held.reset(token)


def find_held_lease() -> HeldLease | None:
    return _held.get()
