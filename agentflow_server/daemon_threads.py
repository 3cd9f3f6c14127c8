"""Blocking calls in daemon threads, a bounded number at a time.

`anyio.to_thread` gives its slot back when a call is abandoned, so calls that hang would pile up
threads without end; and its threads are no daemons, so one that hangs keeps the process alive.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import NoReturn, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Cancelling `run` abandons the thread; its slot is free again when the call really ends."""

    def __init__(self, limit: int) -> None:
        self._slots = asyncio.Semaphore(limit)

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises. Waits while all slots are taken."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Callable[[], T]] = loop.create_future()

        def work() -> None:
            outcome = _run(call)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._finish, done, outcome)

        thread = threading.Thread(
            target=copy_context().run, args=(work,), name="agentflow-call", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._slots.release()
            raise
        return (await done)()

    def _finish(self, done: asyncio.Future[Callable[[], T]], outcome: Callable[[], T]) -> None:
        self._slots.release()
        if not done.cancelled():
            done.set_result(outcome)


def _run(call: Callable[[], T]) -> Callable[[], T]:
    """The outcome of `call`, to be unpacked where it is awaited.

    It travels as a value: a future refuses StopIteration and complains of errors nobody fetched.
    """
    try:
        result = call()
    except BaseException as exc:  # noqa: BLE001 - raised again by the one who waits
        return partial(_fail, exc)
    return lambda: result


def _fail(error: BaseException) -> NoReturn:
    if isinstance(error, Exception):
        raise error
    # SystemExit and the like mean the thread they were raised in, never the one who waits.
    raise RuntimeError(f"a thread ended with {type(error).__name__}") from error
