"""Worker threads for synchronous agents: few, and counted until they have really ended."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from agentflow_server.adapters.asking import Asked
from agentflow_server.daemon_threads import DaemonThreads

T = TypeVar("T")

_AHEAD = 16
"""Items a generator may be ahead of whoever reads them."""

_END = object()


class AgentThreads:
    """The threads of one agent; a stuck agent exhausts its own and nobody else's.

    A cancelled caller does not wait for its thread: Python cannot stop one. The thread goes on
    unheard, and keeps its place until it has ended, so that abandoned threads cannot pile up.
    """

    def __init__(self, limit: int) -> None:
        self._threads = DaemonThreads(limit)
        self._running: dict[str, set[asyncio.Future[None]]] = {}

    async def run(self, call: Callable[[], T], run_id: str) -> T:
        """Call it in a thread of its own, which sees the caller's context variables."""
        end = asyncio.get_running_loop().create_future()
        self._running.setdefault(run_id, set()).add(end)
        result = await self._threads.run(
            partial(_catch_question, call), ended=partial(self._end, run_id, end)
        )
        if isinstance(result, Asked):
            raise result
        return result

    async def settle(self, run_id: str) -> None:
        """Return when none of the run's calls goes on any more."""
        while calls := self._running.get(run_id):
            await asyncio.wait(calls)

    def _end(self, run_id: str, end: asyncio.Future[None]) -> None:
        end.set_result(None)
        calls = self._running[run_id]
        calls.discard(end)
        if not calls:
            del self._running[run_id]

    async def iterate(self, iterator: Iterator[Any], run_id: str) -> AsyncGenerator[Any, None]:
        """The iterator's items as they come, all of it run in one thread.

        When the reader stops early, a generator is closed where it next yields.
        """
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Any] = asyncio.Queue()
        room = threading.Semaphore(_AHEAD)
        stopped = threading.Event()

        def pump() -> None:
            try:
                for item in iterator:
                    room.acquire()
                    if stopped.is_set():
                        return
                    loop.call_soon_threadsafe(items.put_nowait, item)
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()

        # A task, not a task group: whoever reads may do so inside a cancel scope of his own.
        pumping = asyncio.create_task(self.run(pump, run_id))
        pumping.add_done_callback(lambda _: items.put_nowait(_END))
        try:
            while (item := await items.get()) is not _END:
                room.release()
                yield item
            await pumping
        finally:
            stopped.set()
            room.release()
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)


def _catch_question(call: Callable[[], T]) -> T | Asked:
    """A question travels as a value: of what is no Exception, nothing else leaves a thread."""
    try:
        return call()
    except Asked as asked:
        return asked
