"""A few threads that read, each on a connection of its own: a long read delays no writer."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from agentflow_server.errors import StoreUnavailable
from agentflow_server.stores.operations import Job, Operation, T, call_loop

MAX_QUEUED = 4096


class Readers:
    """Owns read-only connections; an operation sees one snapshot, later than any awaited write."""

    def __init__(
        self,
        connections: Sequence[sqlite3.Connection],
        loop: asyncio.AbstractEventLoop,
        *,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._loop = loop
        self._max_queued = max_queued
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(
                target=self._run, args=(connection,), name="agentflow-reader", daemon=True
            )
            for connection in connections
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Only for the loop's own thread. Raises StoreUnavailable when the queue is full."""
        if self._queue.qsize() >= self._max_queued:
            raise StoreUnavailable("The database does not keep up with the requests")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(operation, future))
        return future

    def stop(self) -> None:
        """Finish what is queued, then end the threads. Blocks."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, connection: sqlite3.Connection) -> None:
        while (job := self._queue.get()) is not None:
            if not job.future.cancelled():  # nobody wants to know any more
                _attempt(connection, job)
                call_loop(self._loop, (job,))


def _attempt(connection: sqlite3.Connection, job: Job) -> None:
    try:
        connection.execute("BEGIN")
        try:
            job.result = job.operation(connection)
        finally:
            connection.execute("ROLLBACK")
    except BaseException as exc:  # noqa: BLE001 – it is raised where the caller waits
        job.error = exc
