"""The one thread that writes, committing in groups: many callers share one wait for the disk."""

import asyncio
import logging
import sqlite3
import threading
from queue import Empty, SimpleQueue

from agentflow_server.errors import StoreUnavailable
from agentflow_server.stores.operations import Job, Operation, T, call_loop

log = logging.getLogger(__name__)

MAX_QUEUED = 4096


class Writer:
    """Owns the only connection that writes.

    Whatever is queued while a commit waits for the disk goes into the next one. Each operation
    has a savepoint, so one that raises is undone alone; if the commit itself fails, none of its
    operations has happened and all callers get StoreUnavailable.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        loop: asyncio.AbstractEventLoop,
        *,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._max_queued = max_queued
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon, so that a program that forgets to close the store still ends; what was
        # acknowledged is on the disk.
        self._thread = threading.Thread(target=self._run, name="agentflow-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Queue an operation; the future has its result once it is durable.

        Only for the loop's own thread. A caller that is cancelled does not know whether his
        operation happened: once queued, it is executed. Raises StoreUnavailable when the queue is
        full.
        """
        if self._queue.qsize() >= self._max_queued:
            raise StoreUnavailable("The database does not keep up with the requests")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(operation, future))
        return future

    def stop(self) -> None:
        """Write what is queued, then end the thread. Blocks, so not for the loop's thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._take()
            if batch:
                self._commit(batch)
                call_loop(self._loop, batch)

    def _take(self) -> tuple[list[Job], bool]:
        """Everything queued, at least one job unless the end was reached."""
        batch: list[Job] = []
        job = self._queue.get()
        try:
            while job is not None:
                batch.append(job)
                job = self._queue.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _commit(self, batch: list[Job]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                self._attempt(job)
            connection.execute("COMMIT")
        except sqlite3.Error:
            log.exception("a transaction of %d operations failed", len(batch))
            self._roll_back()
            for job in batch:
                job.error = StoreUnavailable("The database could not write")

    def _attempt(self, job: Job) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT operation")
        try:
            job.result = job.operation(connection)
        except BaseException as exc:  # noqa: BLE001 – it is raised where the caller waits
            job.error = exc
            # This fails when SQLite has already undone the whole transaction; so does the batch.
            connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("a transaction could not be rolled back")
