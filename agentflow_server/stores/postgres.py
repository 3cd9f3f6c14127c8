"""The distributed store: a PostgreSQL database, shared by any number of processes."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Self
from weakref import WeakValueDictionary

from agentflow_server.errors import StoreUnavailable
from agentflow_server.interfaces import CredentialStore, Store
from agentflow_server.models import (
    ActiveRun,
    Answer,
    ApiKey,
    CopyPoint,
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
    ThreadCopy,
    ThreadStatus,
)
from agentflow_server.stores import postgres_copies as copies_sql
from agentflow_server.stores import postgres_credentials as credentials_sql
from agentflow_server.stores import postgres_delays as delays_sql
from agentflow_server.stores import postgres_finishing as finishing_sql
from agentflow_server.stores import postgres_lines as lines_sql
from agentflow_server.stores import postgres_messages as messages_sql
from agentflow_server.stores import postgres_resuming as resuming_sql
from agentflow_server.stores import postgres_run_lists as run_lists_sql
from agentflow_server.stores import postgres_starting as starting_sql
from agentflow_server.stores import postgres_stopping as stopping_sql
from agentflow_server.stores import postgres_threads as threads_sql
from agentflow_server.stores.copies import COPIED_AT_ONCE, merge_metadata, select_runs
from agentflow_server.stores.postgres_connections import (
    Operation,
    PostgresConnections,
    T,
)
from agentflow_server.stores.postgres_opening import open_connections
from agentflow_server.stores.rows import to_datetime, to_microseconds, to_text
from agentflow_server.stores.rules import Kind, Observe

CONNECTIONS = 10
"""How many a store opens at most. Each does one short thing at a time: more only wait in the
server instead of here."""

_PURGED_AT_ONCE = 100
_TOUCH = "UPDATE schema_migrations SET applied_at = applied_at WHERE version = 1"


class PostgresStore(Store, CredentialStore):
    """A store for any number of servers at a time.

    `url` is what libpq understands: its parameters, its files and its environment count, too.
    It may be opened and closed several times, and is used from the event loop that opened it.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = CONNECTIONS,
        runs_per_owner: int | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._url = url
        self._size = connections
        self._per_owner = runs_per_owner
        self._observe = observe
        self._arrivals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._open: PostgresConnections | None = None

    async def __aenter__(self) -> Self:
        self._open = await open_connections(self._url, size=self._size)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        opened, self._open = self._get_open(), None
        await opened.close()

    async def write(self, operation: Operation[T]) -> T:
        """Await `operation(connection)` on a connection that commits each statement.

        What it raises passes through, but for errors of the database. A caller that is cancelled
        does not know whether it happened. Raises StoreUnavailable.
        """
        return await self._run("write", operation)

    async def read(self, operation: Operation[T]) -> T:
        """The same, for what only looks."""
        return await self._run("read", operation)

    async def _run(self, kind: Kind, operation: Operation[T]) -> T:
        begun = time.perf_counter()
        try:
            return await self._get_open().run(operation)
        finally:
            if self._observe is not None:
                self._observe(kind, time.perf_counter() - begun)

    def _get_open(self) -> PostgresConnections:
        if self._open is None:
            raise StoreUnavailable("The database is closed")
        return self._open

    async def ping(self) -> None:
        # With a row to write: a server that can only read is not ready.
        await self.write(lambda connection: connection.execute(_TOUCH))

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
        return await self.write(
            lambda connection: threads_sql.create_thread(
                connection, owner, thread_id, text, reuse=reuse, idempotency=idempotency
            )
        )

    async def get_thread(self, owner: str, thread_id: str) -> Thread:
        return await self.read(
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
        return await self.read(
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
        return await self.write(
            lambda connection: threads_sql.update_thread(
                connection, owner, thread_id, name=name, metadata=metadata
            )
        )

    async def name_thread(self, thread_id: str, name: str) -> None:
        await self.write(lambda connection: threads_sql.name_thread(connection, thread_id, name))

    async def hide_thread(self, owner: str, thread_id: str) -> str | None:
        return await self.write(
            lambda connection: threads_sql.hide_thread(connection, owner, thread_id)
        )

    async def purge_thread(self, thread_id: str) -> None:
        while await self.write(
            lambda connection: threads_sql.purge_slice(connection, thread_id, _PURGED_AT_ONCE)
        ):
            pass

    async def list_hidden_threads(self) -> Sequence[tuple[str, str | None]]:
        return await self.write(threads_sql.list_hidden)

    async def begin_copy(
        self,
        owner: str,
        thread_id: str,
        new_thread_id: str,
        *,
        metadata: JsonObject,
        idempotency: Idempotency | None = None,
    ) -> ThreadCopy:
        wanted = ThreadCopy(thread_id, new_thread_id)
        copy, found = await self.read(lambda connection: copies_sql.look(connection, owner, wanted))
        text = to_text(merge_metadata(found, metadata))
        return await self.write(
            lambda connection: copies_sql.begin_copy(connection, owner, copy, text, idempotency)
        )

    async def finish_copy(
        self,
        owner: str,
        copy: ThreadCopy,
        *,
        point: CopyPoint | None = None,
        unchanged: bool = False,
        idempotency: Idempotency | None = None,
    ) -> Thread:
        runs = select_runs(copy, point)
        for n in range(0, len(runs), COPIED_AT_ONCE):
            await self.write(
                partial(
                    copies_sql.copy_turns,
                    copy=copy,
                    runs=runs[n : n + COPIED_AT_ONCE],
                    resumable=point is None,
                )
            )
        return await self.write(
            lambda connection: copies_sql.reveal(
                connection, owner, copy, point, unchanged=unchanged, idempotency=idempotency
            )
        )

    # Runs

    async def start_run(
        self,
        owner: str,
        new: NewRun,
        *,
        idempotency: Idempotency | None = None,
        claim: bool = True,
    ) -> StartedRun:
        # In order of arrival; and however many wait for one thread, they take one connection.
        async with self._arrivals.setdefault(new.thread_id, asyncio.Lock()):
            return await self.write(
                lambda connection: starting_sql.start_run(
                    connection, owner, new, idempotency, claim=claim, per_owner=self._per_owner
                )
            )

    async def claim_run(self, thread_id: str) -> ActiveRun | None:
        return await self.write(
            lambda connection: lines_sql.claim_run(connection, thread_id, self._per_owner)
        )

    async def claim_next(self) -> ActiveRun | None:
        return await self.write(
            lambda connection: lines_sql.claim_next(connection, self._per_owner)
        )

    async def take_over(self, active: ActiveRun) -> ActiveRun:
        return await self.write(lambda connection: resuming_sql.take_over(connection, active))

    async def release_delayed(self, until: datetime) -> tuple[Sequence[str], datetime | None]:
        moment = to_microseconds(until)
        threads: dict[str, None] = {}
        for run_id, thread_id in await self.read(partial(delays_sql.list_due, until=moment)):
            take_turn = partial(delays_sql.take_turn, run_id=run_id, thread_id=thread_id)
            if await self.write(partial(take_turn, until=moment)):
                threads[thread_id] = None
        next_due = await self.read(delays_sql.find_next_due)
        return list(threads), None if next_due is None else to_datetime(next_due)

    async def stop_run(self, owner: str, thread_id: str, run_id: str, how: Stop) -> Run:
        return await self.write(
            lambda connection: stopping_sql.stop_run(connection, owner, thread_id, run_id, how)
        )

    async def resume_run(
        self, owner: str, thread_id: str, run_id: str, answer: Answer
    ) -> ActiveRun:
        return await self.write(
            lambda connection: resuming_sql.resume_run(connection, owner, thread_id, run_id, answer)
        )

    async def list_interrupts(
        self, owner: str, *, limit: int, cursor: str | None = None
    ) -> Page[PendingInterrupt]:
        return await self.read(
            lambda connection: resuming_sql.list_interrupts(
                connection, owner, limit=limit, cursor=cursor
            )
        )

    async def append_events(self, active: ActiveRun, events: Sequence[Event]) -> None:
        await self.write(lambda connection: finishing_sql.append_events(connection, active, events))

    async def finish_run(
        self,
        active: ActiveRun,
        outcome: RunOutcome,
        messages: Sequence[Message],
        events: Sequence[Event],
        *,
        claim_next: bool = True,
    ) -> ActiveRun | None:
        return await self.write(
            lambda connection: finishing_sql.finish_run(
                connection,
                active,
                outcome,
                messages,
                events,
                claim_next=claim_next,
                per_owner=self._per_owner,
            )
        )

    async def interrupted_runs(self) -> Sequence[ActiveRun]:
        return await self.read(run_lists_sql.list_running)

    async def waiting_threads(self) -> Sequence[str]:
        return await self.read(run_lists_sql.list_waiting)

    async def read_queue(self) -> QueueState:
        return await self.read(run_lists_sql.read_queue)

    async def get_run(self, owner: str, thread_id: str, run_id: str) -> Run:
        return await self.read(
            lambda connection: run_lists_sql.get_run(connection, owner, thread_id, run_id)
        )

    async def list_runs(
        self, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
    ) -> Page[Run]:
        return await self.read(
            lambda connection: run_lists_sql.list_runs(
                connection, owner, thread_id, limit=limit, cursor=cursor
            )
        )

    async def list_events(self, run_id: str, *, after: int, limit: int) -> Sequence[Event]:
        return await self.read(
            lambda connection: messages_sql.list_events(connection, run_id, after, limit)
        )

    # Messages

    async def list_messages(
        self, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
    ) -> Page[Message]:
        return await self.read(
            lambda connection: messages_sql.list_messages(
                connection, owner, thread_id, limit=limit, cursor=cursor
            )
        )

    async def run_messages(self, run_id: str) -> Sequence[Message]:
        return await self.read(lambda connection: messages_sql.run_messages(connection, run_id))

    async def history(self, active: ActiveRun, *, limit: int | None) -> Sequence[Message]:
        return await self.read(lambda connection: messages_sql.history(connection, active, limit))

    # Credentials

    async def add_api_key(self, key: ApiKey, secret_hash: bytes) -> None:
        await self.write(
            lambda connection: credentials_sql.add_api_key(connection, key, secret_hash)
        )

    async def find_api_key(self, key_id: str) -> tuple[ApiKey, bytes] | None:
        return await self.read(lambda connection: credentials_sql.find_api_key(connection, key_id))

    async def list_api_keys(self, user_id: str | None = None) -> Sequence[ApiKey]:
        return await self.read(
            lambda connection: credentials_sql.list_api_keys(connection, user_id)
        )

    async def revoke_api_key(self, key_id: str, at: float) -> bool:
        return await self.write(
            lambda connection: credentials_sql.revoke_api_key(connection, key_id, at)
        )

    async def touch_api_keys(self, used: Mapping[str, float]) -> None:
        await self.write(lambda connection: credentials_sql.touch_api_keys(connection, used))

    async def add_revocation(self, revocation: Revocation) -> None:
        await self.write(lambda connection: credentials_sql.add_revocation(connection, revocation))

    async def list_revocations(self, now: float) -> Sequence[Revocation]:
        return await self.read(lambda connection: credentials_sql.list_revocations(connection, now))
