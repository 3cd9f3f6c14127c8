"""Blocking calls in daemon threads, a bounded number at a time.

`anyio.to_thread` gives its slot back when a call is abandoned, so calls that hang would pile up
threads without end; and its threads are no daemons, so one that hangs keeps the process alive.
"""

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import NoReturn, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Cancelling `run` abandons the call; its slot is free again when the call really ends.

    Threads are kept for the next call: starting one takes longer than most calls. They end with
    this object.
    """

    def __init__(self, limit: int) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = 0
        weakref.finalize(self, self._calls.put, None)

    async def run(self, call: Callable[[], T], *, ended: Callable[[], None] | None = None) -> T:
        """What `call` returns or raises. Waits while all slots are taken.

        `ended` is called on the event loop when the call has really ended, or will never begin.
        """
        ended = ended or _nothing
        try:
            await self._slots.acquire()
            self._find_thread()
        except BaseException:
            ended()
            raise
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Callable[[], T]] = loop.create_future()
        context = copy_context()

        def work() -> None:
            outcome = context.run(_run, call)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._finish, done, outcome, ended)

        self._calls.put(work)
        return (await done)()

    def _find_thread(self) -> None:
        if self._idle:
            self._idle -= 1
            return
        thread = threading.Thread(
            target=_serve, args=(self._calls,), name="agentflow-call", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._slots.release()
            raise

    def _finish(
        self,
        done: asyncio.Future[Callable[[], T]],
        outcome: Callable[[], T],
        ended: Callable[[], None],
    ) -> None:
        self._idle += 1
        self._slots.release()
        ended()
        if not done.cancelled():
            done.set_result(outcome)


def _nothing() -> None:
    pass


def _serve(calls: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # what it holds must not live until the next one comes
    calls.put(None)  # for the next thread


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
