"""The embedded store: one SQLite file, one writer with group commit, readers beside it."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from anyio import to_thread

from agentflow_server.errors import StoreUnavailable
from agentflow_server.interfaces import CredentialStore
from agentflow_server.models import (
    ActiveRun,
    Answer,
    ApiKey,
    Event,
    Idempotency,
    JsonObject,
    Message,
    NewRun,
    Page,
    PendingInterrupt,
    QueueState,
    Revocation,
    Run,
    RunOutcome,
    StartedRun,
    Stop,
    Thread,
    ThreadStatus,
)
from agentflow_server.stores import sqlite_credentials as credentials_sql
from agentflow_server.stores import sqlite_delays as delays_sql
from agentflow_server.stores import sqlite_messages as messages_sql
from agentflow_server.stores import sqlite_resuming as resuming_sql
from agentflow_server.stores import sqlite_runs as runs_sql
from agentflow_server.stores import sqlite_stopping as stopping_sql
from agentflow_server.stores import sqlite_threads as threads_sql
from agentflow_server.stores.operations import Operation, T
from agentflow_server.stores.readers import Readers
from agentflow_server.stores.rows import to_datetime, to_microseconds, to_text
from agentflow_server.stores.rules import Kind, Observe
from agentflow_server.stores.sqlite_copying import SqliteCopying
from agentflow_server.stores.sqlite_file import OpenFile, open_file
from agentflow_server.stores.writer import Writer

log = logging.getLogger(__name__)

_PURGED_AT_ONCE = 100
_TOUCH = "UPDATE schema_migrations SET applied_at = applied_at WHERE version = 1"


@dataclass(frozen=True, slots=True)
class _Open:
    """What is there while the store is open."""

    file: OpenFile
    writer: Writer
    readers: Readers

    def stop(self) -> None:
        self.writer.stop()
        self.readers.stop()
        self.file.close()


class SqliteStore(SqliteCopying, CredentialStore):
    """A store in one file, for one server at a time.

    It may be opened and closed several times, and is used from the event loop that opened it.
    With `exclusive=False` it is for operators' commands, which may run beside that server.
    """

    def __init__(
        self,
        path: Path,
        *,
        exclusive: bool = True,
        runs_per_owner: int | None = None,
        observe: Observe | None = None,
    ) -> None:
        """`observe` is told how long each operation took, its time in the queue included."""
        self._path = path
        self._exclusive = exclusive
        self._runs_per_owner = runs_per_owner
        self._observe = observe
        self._open: _Open | None = None

    async def __aenter__(self) -> Self:
        file = await to_thread.run_sync(partial(open_file, self._path, exclusive=self._exclusive))
        loop = asyncio.get_running_loop()
        self._open = _Open(file, Writer(file.writer, loop), Readers(file.readers, loop))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        opened, self._open = self._get_open(), None
        await to_thread.run_sync(opened.stop)

    async def write(self, operation: Operation[T]) -> T:
        """Run `operation(connection)` in the writer thread and return its result once durable.

        It shares a transaction with whatever else is being written, but is undone alone when it
        raises; what it raises passes through. It must be quick, must not begin, commit or roll
        back, and must not return anything that needs the connection. A caller that is cancelled
        does not know whether it happened. Raises StoreUnavailable when nothing can be written.
        """
        submit = self._get_open().writer.submit
        return await (
            submit(operation) if self._observe is None else self._timed("write", submit, operation)
        )

    async def read(self, operation: Operation[T]) -> T:
        """Run `operation(connection)` in a reader thread, on one read-only snapshot.

        Every write awaited before is seen. What it raises passes through.
        """
        submit = self._get_open().readers.submit
        return await (
            submit(operation) if self._observe is None else self._timed("read", submit, operation)
        )

    async def _timed(
        self,
        kind: Kind,
        submit: Callable[[Operation[T]], Awaitable[T]],
        operation: Operation[T],
    ) -> T:
        assert self._observe is not None  # noqa: S101 – asked by the caller
        begun = time.perf_counter()
        try:
            return await submit(operation)
        finally:
            self._observe(kind, time.perf_counter() - begun)

    def _get_open(self) -> _Open:
        if self._open is None:
            raise StoreUnavailable("The database is closed")
        return self._open

    async def _write(self, operation: Operation[T]) -> T:
        try:
            return await self.write(operation)
        except sqlite3.Error as exc:
            raise _unavailable(exc) from exc

    async def _read(self, operation: Operation[T]) -> T:
        try:
            return await self.read(operation)
        except sqlite3.Error as exc:
            raise _unavailable(exc) from exc

    async def ping(self) -> None:
        # Through both doors, and with a page to write: a server that can only read is not ready.
        await self._write(lambda connection: connection.execute(_TOUCH).rowcount)
        await self._read(lambda connection: connection.execute("SELECT 1 FROM threads").fetchone())

    # Threads

    async def create_thread(
        self,
        owner: str,
        thread_id: str,
        *,
        metadata: JsonObject,
        reuse: bool = False,
        idempotency: Idempotency | None = None,
    ) -> Thread:
        text = to_text(metadata)
        return await self._write(
            lambda connection: threads_sql.create_thread(
                connection, owner, thread_id, text, reuse=reuse, idempotency=idempotency
            )
        )

    async def get_thread(self, owner: str, thread_id: str) -> Thread:
        return await self._read(
            lambda connection: threads_sql.get_thread(connection, owner, thread_id)
        )

    async def list_threads(
        self,
        owner: str,
        *,
        limit: int,
        cursor: str | None = None,
        status: ThreadStatus | None = None,
        metadata: JsonObject | None = None,
    ) -> Page[Thread]:
        return await self._read(
            lambda connection: threads_sql.list_threads(
                connection, owner, limit=limit, cursor=cursor, status=status, metadata=metadata
            )
        )

    async def update_thread(
        self,
        owner: str,
        thread_id: str,
        *,
        name: str | None = None,
        metadata: JsonObject | None = None,
    ) -> Thread:
        return await self._write(
            lambda connection: threads_sql.update_thread(
                connection, owner, thread_id, name=name, metadata=metadata
            )
        )

    async def name_thread(self, thread_id: str, name: str) -> None:
        await self._write(lambda connection: threads_sql.name_thread(connection, thread_id, name))

    async def hide_thread(self, owner: str, thread_id: str) -> str | None:
        return await self._write(
            lambda connection: threads_sql.hide_thread(connection, owner, thread_id)
        )

    async def purge_thread(self, thread_id: str) -> None:
        while await self._write(
            lambda connection: threads_sql.purge_slice(connection, thread_id, _PURGED_AT_ONCE)
        ):
            pass

    async def list_hidden_threads(self) -> Sequence[tuple[str, str | None]]:
        return await self._write(threads_sql.list_hidden)

    # Runs

    async def start_run(
        self,
        owner: str,
        new: NewRun,
        *,
        idempotency: Idempotency | None = None,
        claim: bool = True,
    ) -> StartedRun:
        limit = self._runs_per_owner
        return await self._write(
            lambda connection: runs_sql.start_run(
                connection, owner, new, idempotency, claim=claim, per_owner=limit
            )
        )

    async def claim_run(self, thread_id: str) -> ActiveRun | None:
        limit = self._runs_per_owner
        return await self._write(
            lambda connection: runs_sql.claim_run(connection, thread_id, limit)
        )

    async def claim_next(self) -> ActiveRun | None:
        limit = self._runs_per_owner
        return await self._write(lambda connection: runs_sql.claim_next(connection, limit))

    async def take_over(self, active: ActiveRun) -> ActiveRun:
        return await self._write(lambda connection: resuming_sql.take_over(connection, active))

    async def release_delayed(self, until: datetime) -> tuple[Sequence[str], datetime | None]:
        moment = to_microseconds(until)
        threads, next_due = await self._write(
            lambda connection: delays_sql.release_delayed(connection, moment)
        )
        return threads, None if next_due is None else to_datetime(next_due)

    async def stop_run(self, owner: str, thread_id: str, run_id: str, how: Stop) -> Run:
        def stop(connection: sqlite3.Connection) -> Run:
            stopping_sql.stop_run(connection, owner, thread_id, run_id, how)
            return runs_sql.get_run(connection, owner, thread_id, run_id)

        return await self._write(stop)

    async def resume_run(
        self, owner: str, thread_id: str, run_id: str, answer: Answer
    ) -> ActiveRun:
        return await self._write(
            lambda connection: resuming_sql.resume_run(connection, owner, thread_id, run_id, answer)
        )

    async def list_interrupts(
        self, owner: str, *, limit: int, cursor: str | None = None
    ) -> Page[PendingInterrupt]:
        return await self._read(
            lambda connection: resuming_sql.list_interrupts(
                connection, owner, limit=limit, cursor=cursor
            )
        )

    async def append_events(self, active: ActiveRun, events: Sequence[Event]) -> None:
        await self._write(lambda connection: runs_sql.append_events(connection, active, events))

    async def finish_run(
        self,
        active: ActiveRun,
        outcome: RunOutcome,
        messages: Sequence[Message],
        events: Sequence[Event],
        *,
        claim_next: bool = True,
    ) -> ActiveRun | None:
        return await self._write(
            lambda connection: runs_sql.finish_run(
                connection,
                active,
                outcome,
                messages,
                events,
                claim_next=claim_next,
                per_owner=self._runs_per_owner,
            )
        )

    async def interrupted_runs(self) -> Sequence[ActiveRun]:
        return await self._read(runs_sql.list_running)

    async def waiting_threads(self) -> Sequence[str]:
        return await self._read(runs_sql.list_waiting)

    async def read_queue(self) -> QueueState:
        return await self._read(runs_sql.read_queue)

    async def get_run(self, owner: str, thread_id: str, run_id: str) -> Run:
        return await self._read(
            lambda connection: runs_sql.get_run(connection, owner, thread_id, run_id)
        )

    async def list_runs(
        self, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
    ) -> Page[Run]:
        return await self._read(
            lambda connection: runs_sql.list_runs(
                connection, owner, thread_id, limit=limit, cursor=cursor
            )
        )

    async def list_events(self, run_id: str, *, after: int, limit: int) -> Sequence[Event]:
        return await self._read(
            lambda connection: messages_sql.list_events(connection, run_id, after, limit)
        )

    # Messages

    async def list_messages(
        self, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
    ) -> Page[Message]:
        return await self._read(
            lambda connection: messages_sql.list_messages(
                connection, owner, thread_id, limit=limit, cursor=cursor
            )
        )

    async def run_messages(self, run_id: str) -> Sequence[Message]:
        return await self._read(lambda connection: messages_sql.run_messages(connection, run_id))

    async def history(self, active: ActiveRun, *, limit: int | None) -> Sequence[Message]:
        return await self._read(lambda connection: messages_sql.history(connection, active, limit))

    # Credentials

    async def add_api_key(self, key: ApiKey, secret_hash: bytes) -> None:
        await self._write(
            lambda connection: credentials_sql.add_api_key(connection, key, secret_hash)
        )

    async def find_api_key(self, key_id: str) -> tuple[ApiKey, bytes] | None:
        return await self._read(lambda connection: credentials_sql.find_api_key(connection, key_id))

    async def list_api_keys(self, user_id: str | None = None) -> Sequence[ApiKey]:
        return await self._read(
            lambda connection: credentials_sql.list_api_keys(connection, user_id)
        )

    async def revoke_api_key(self, key_id: str, at: float) -> bool:
        return await self._write(
            lambda connection: credentials_sql.revoke_api_key(connection, key_id, at)
        )

    async def touch_api_keys(self, used: Mapping[str, float]) -> None:
        await self._write(lambda connection: credentials_sql.touch_api_keys(connection, used))

    async def add_revocation(self, revocation: Revocation) -> None:
        await self._write(lambda connection: credentials_sql.add_revocation(connection, revocation))

    async def list_revocations(self, now: float) -> Sequence[Revocation]:
        return await self._read(
            lambda connection: credentials_sql.list_revocations(connection, now)
        )


def _unavailable(exc: sqlite3.Error) -> StoreUnavailable:
    log.error("the database refused an operation: %s", exc)
    return StoreUnavailable("The database cannot be used right now")
