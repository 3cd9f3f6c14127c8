"""A piece of work on its way from the event loop to a database thread and back."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

Operation = Callable[[sqlite3.Connection], T]
"""Runs in a database thread, inside a transaction it neither begins nor ends, and returns values
that need the connection no more."""


@dataclass(slots=True)
class Job:
    """An operation, what came of it, and the future its caller waits for."""

    operation: Operation[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell the caller, on his loop. One that was cancelled meanwhile is not told."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        elif isinstance(self.error, StopIteration):  # which a future refuses to carry
            self.future.set_exception(RuntimeError("the operation raised StopIteration"))
        else:
            self.future.set_exception(self.error)


def settle_all(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.settle()


def call_loop(loop: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
    """Settle the jobs on their loop, with one wake-up for all of them."""
    try:
        loop.call_soon_threadsafe(settle_all, jobs)
    except RuntimeError:
        # The loop was closed without closing the store: nobody is left to be told.
        if not loop.is_closed():
            raise
