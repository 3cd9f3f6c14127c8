"""Worker threads for synchronous agents: few, and counted until they have really ended."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

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

    async def run(self, call: Callable[[], T]) -> T:
        """Call it in a thread of its own, which sees the caller's context variables."""
        return await self._threads.run(call)

    async def iterate(self, iterator: Iterator[Any]) -> AsyncGenerator[Any, None]:
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
        pumping = asyncio.create_task(self.run(pump))
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
