"""The embedded store: one SQLite file, one writer with group commit, readers beside it."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self

from anyio import to_thread

from agentflow_server.errors import StoreUnavailable
from agentflow_server.interfaces import (
    CredentialStore,
    GrantStore,
    OperatorStore,
    UserStore,
    WebhookStore,
)
from agentflow_server.models import (
    ActiveRun,
    Answer,
    Event,
    Idempotency,
    Message,
    NewRun,
    ResumedRun,
    RunOutcome,
    StartedRun,
)
from agentflow_server.stores import sqlite_copies as copies_sql
from agentflow_server.stores import sqlite_credentials as credentials_sql
from agentflow_server.stores import sqlite_delays as delays_sql
from agentflow_server.stores import sqlite_grants as grants_sql
from agentflow_server.stores import sqlite_messages as messages_sql
from agentflow_server.stores import sqlite_operators as operators_sql
from agentflow_server.stores import sqlite_pruning as pruning_sql
from agentflow_server.stores import sqlite_resuming as resuming_sql
from agentflow_server.stores import sqlite_run_lists as run_lists_sql
from agentflow_server.stores import sqlite_runs as runs_sql
from agentflow_server.stores import sqlite_stopping as stopping_sql
from agentflow_server.stores import sqlite_threads as threads_sql
from agentflow_server.stores import sqlite_users as users_sql
from agentflow_server.stores import sqlite_webhooks as webhooks_sql
from agentflow_server.stores.operations import Operation, T
from agentflow_server.stores.readers import Readers
from agentflow_server.stores.rules import Kind, Observe
from agentflow_server.stores.slices import SlicingStore
from agentflow_server.stores.sqlite_file import OpenFile, open_file
from agentflow_server.stores.writer import Writer

log = logging.getLogger(__name__)

P = ParamSpec("P")
Method = Callable[Concatenate["SqliteStore", P], Coroutine[Any, Any, T]]

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


def reading(operation: Callable[Concatenate[sqlite3.Connection, P], T]) -> Method[P, T]:
    """The method that runs `operation` beside all others, on a snapshot."""

    async def method(self: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._read(lambda connection: operation(connection, *args, **kwargs))

    return method


def writing(operation: Callable[Concatenate[sqlite3.Connection, P], T]) -> Method[P, T]:
    """The method that runs `operation` in the writer's next transaction."""

    async def method(self: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._write(lambda connection: operation(connection, *args, **kwargs))

    return method


class SqliteStore(
    SlicingStore, CredentialStore, GrantStore, OperatorStore, UserStore, WebhookStore
):
    """A store in one file, for one server at a time.

    It may be opened and closed several times, and is used from the event loop that opened it.
    With `exclusive=False` it is for operators' commands, which may run beside that server.
    With `upgrades=False` a database that an older version has made is refused.
    """

    def __init__(
        self,
        path: Path,
        *,
        exclusive: bool = True,
        upgrades: bool = True,
        runs_per_owner: int | None = None,
        observe: Observe | None = None,
    ) -> None:
        """`observe` is told how long each operation took, its time in the queue included."""
        self._path = path
        self._exclusive = exclusive
        self._upgrades = upgrades
        self._runs_per_owner = runs_per_owner
        self._observe = observe
        self._open: _Open | None = None

    async def __aenter__(self) -> Self:
        opening = partial(open_file, self._path, exclusive=self._exclusive, upgrades=self._upgrades)
        file = await to_thread.run_sync(opening)
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

    create_thread = writing(threads_sql.create_thread)
    get_thread = reading(threads_sql.get_thread)
    list_threads = reading(threads_sql.list_threads)
    update_thread = writing(threads_sql.update_thread)
    name_thread = writing(threads_sql.name_thread)
    hide_thread = writing(threads_sql.hide_thread)
    list_hidden_threads = writing(threads_sql.list_hidden)
    _purge_slice = writing(threads_sql.purge_slice)
    _look_at_source = reading(copies_sql.look)
    _hide_copy = writing(copies_sql.begin_copy)
    _copy_turns = writing(copies_sql.copy_turns)
    _reveal_copy = writing(copies_sql.reveal)

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

    async def claim_next(self, *, lease: str | None = None) -> ActiveRun | None:
        limit = self._runs_per_owner
        return await self._write(lambda connection: runs_sql.claim_next(connection, limit, lease))

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

    async def resume_run(
        self, owner: str, thread_id: str, run_id: str, answer: Answer, *, claim: bool = True
    ) -> ResumedRun:
        limit = self._runs_per_owner
        return await self._write(
            lambda connection: resuming_sql.resume_run(
                connection, owner, thread_id, run_id, answer, claim=claim, per_owner=limit
            )
        )

    take_over = writing(resuming_sql.take_over)
    put_back = writing(resuming_sql.put_back)
    list_interrupts = reading(resuming_sql.list_interrupts)
    list_all_interrupts = reading(resuming_sql.list_all_interrupts)
    find_asker = reading(resuming_sql.find_asker)
    release_delayed = writing(delays_sql.release_delayed)
    stop_run = writing(stopping_sql.stop_run)
    append_events = writing(runs_sql.append_events)
    interrupted_runs = reading(run_lists_sql.list_running)
    read_queue = reading(run_lists_sql.read_queue)
    get_run = reading(run_lists_sql.get_run)
    list_runs = reading(run_lists_sql.list_runs)

    # Messages and events

    list_messages = reading(messages_sql.list_messages)
    run_messages = reading(messages_sql.run_messages)
    history = reading(messages_sql.history)
    list_events = reading(messages_sql.list_events)
    _list_prunable = reading(pruning_sql.list_prunable)
    _prune = writing(pruning_sql.prune)

    async def prune(self, *, events_before: datetime | None, limit: int) -> int:
        # Looked for beside the writer: it may have to pass by many runs that are to stay.
        found = await self._list_prunable(events_before, limit) if events_before else ()
        await self._prune(found, limit)
        return len(found)

    # Operators

    find_run = reading(operators_sql.find_run)
    list_all_runs = reading(operators_sql.list_all_runs)
    read_retry = reading(operators_sql.read_retry)
    count_rows = reading(operators_sql.count_rows)

    # Credentials

    add_api_key = writing(credentials_sql.add_api_key)
    find_api_key = reading(credentials_sql.find_api_key)
    list_api_keys = reading(credentials_sql.list_api_keys)
    revoke_api_key = writing(credentials_sql.revoke_api_key)
    touch_api_keys = writing(credentials_sql.touch_api_keys)
    add_revocation = writing(credentials_sql.add_revocation)
    list_revocations = reading(credentials_sql.list_revocations)

    # Users

    add_users = writing(users_sql.add_users)
    find_user_by_name = reading(users_sql.find_user_by_name)
    get_user = reading(users_sql.get_user)
    list_users = reading(users_sql.list_users)
    update_user = writing(users_sql.update_user)
    replace_hash = writing(users_sql.replace_hash)
    accept_totp_step = writing(users_sql.accept_totp_step)
    remove_user = writing(users_sql.remove_user)

    # Grants

    ensure_signing_key = writing(grants_sql.ensure_signing_key)
    add_signing_key = writing(grants_sql.add_signing_key)
    list_signing_keys = reading(grants_sql.list_signing_keys)
    remove_signing_key = writing(grants_sql.remove_signing_key)
    add_code = writing(grants_sql.add_code)
    take_code = writing(grants_sql.take_code)
    add_refresh_token = writing(grants_sql.add_refresh_token)
    find_refresh_token = reading(grants_sql.find_refresh_token)
    replace_refresh_token = writing(grants_sql.replace_refresh_token)
    revoke_family = writing(grants_sql.revoke_family)
    revoke_user_grants = writing(grants_sql.revoke_user_grants)
    prune_grants = writing(grants_sql.prune_grants)

    # Webhooks

    claim_delivery = writing(webhooks_sql.claim_delivery)
    next_delivery = reading(webhooks_sql.next_delivery)
    end_delivery = writing(webhooks_sql.end_delivery)
    postpone_delivery = writing(webhooks_sql.postpone_delivery)
    list_deliveries = reading(webhooks_sql.list_deliveries)
    retry_delivery = writing(webhooks_sql.retry_delivery)
    prune_deliveries = writing(webhooks_sql.prune_deliveries)


def _unavailable(exc: sqlite3.Error) -> StoreUnavailable:
    log.error("the database refused an operation: %s", exc)
    return StoreUnavailable("The database cannot be used right now")
