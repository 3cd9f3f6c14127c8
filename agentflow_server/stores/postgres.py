"""The distributed store: a PostgreSQL database, shared by any number of processes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Self
from weakref import WeakValueDictionary

from agentflow_server.errors import DatabaseOutdated, StoreUnavailable
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
from agentflow_server.stores import postgres_copies as copies_sql
from agentflow_server.stores import postgres_credentials as credentials_sql
from agentflow_server.stores import postgres_delays as delays_sql
from agentflow_server.stores import postgres_finishing as finishing_sql
from agentflow_server.stores import postgres_grants as grants_sql
from agentflow_server.stores import postgres_lines as lines_sql
from agentflow_server.stores import postgres_messages as messages_sql
from agentflow_server.stores import postgres_operators as operators_sql
from agentflow_server.stores import postgres_pruning as pruning_sql
from agentflow_server.stores import postgres_resuming as resuming_sql
from agentflow_server.stores import postgres_run_lists as run_lists_sql
from agentflow_server.stores import postgres_starting as starting_sql
from agentflow_server.stores import postgres_stopping as stopping_sql
from agentflow_server.stores import postgres_threads as threads_sql
from agentflow_server.stores import postgres_users as users_sql
from agentflow_server.stores import postgres_webhooks as webhooks_sql
from agentflow_server.stores.postgres_connections import (
    Connection,
    Operation,
    PostgresConnections,
    T,
)
from agentflow_server.stores.postgres_opening import migrating, open_connections
from agentflow_server.stores.rows import to_datetime, to_microseconds
from agentflow_server.stores.rules import Kind, Observe
from agentflow_server.stores.slices import SlicingStore

CONNECTIONS = 10
"""How many a store opens at most. Each does one short thing at a time: more only wait in the
server instead of here."""

P = ParamSpec("P")
Method = Callable[Concatenate["PostgresStore", P], Coroutine[Any, Any, T]]

_TOUCH = "UPDATE schema_migrations SET applied_at = applied_at WHERE version = 1"


def reading(operation: Callable[Concatenate[Connection, P], Awaitable[T]]) -> Method[P, T]:
    """The method that awaits `operation`, which only looks."""

    async def method(self: "PostgresStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(lambda connection: operation(connection, *args, **kwargs))

    return method


def writing(operation: Callable[Concatenate[Connection, P], Awaitable[T]]) -> Method[P, T]:
    """The method that awaits `operation`."""

    async def method(self: "PostgresStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(lambda connection: operation(connection, *args, **kwargs))

    return method


class PostgresStore(
    SlicingStore, CredentialStore, GrantStore, OperatorStore, UserStore, WebhookStore
):
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
        upgrades: bool = True,
    ) -> None:
        """With `upgrades=False` it is for operators' commands, which never change what the servers
        of an older version have made."""
        self._url = url
        self._upgrades = upgrades
        self._size = connections
        self._per_owner = runs_per_owner
        self._observe = observe
        self._arrivals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._open: PostgresConnections | None = None

    async def __aenter__(self) -> Self:
        self._open = await open_connections(self._url, size=self._size, upgrades=self._upgrades)
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

    def migrating(self) -> AbstractAsyncContextManager[Connection]:
        """A connection for changes of our schema by others than the store, while no other server
        changes it. Raises ConfigError."""
        if not self._upgrades:
            raise DatabaseOutdated(
                'the tables of LangGraph are not up to date; "agentflow db upgrade" brings them there'
            )
        return migrating(self._url)

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
        # In order of arrival; and however many wait for one thread, they take one connection.
        async with self._arrivals.setdefault(new.thread_id, asyncio.Lock()):
            return await self.write(
                lambda connection: starting_sql.start_run(
                    connection, owner, new, idempotency, claim=claim, per_owner=self._per_owner
                )
            )

    async def claim_next(self, *, lease: str | None = None) -> ActiveRun | None:
        return await self.write(
            lambda connection: lines_sql.claim_next(connection, self._per_owner, lease)
        )

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

    async def resume_run(
        self, owner: str, thread_id: str, run_id: str, answer: Answer, *, claim: bool = True
    ) -> ResumedRun:
        limit = self._per_owner
        return await self.write(
            lambda connection: resuming_sql.resume_run(
                connection, owner, thread_id, run_id, answer, claim=claim, per_owner=limit
            )
        )

    async def release_delayed(self, until: datetime) -> tuple[Sequence[str], datetime | None]:
        moment = to_microseconds(until)
        threads: dict[str, None] = {}
        for run_id, thread_id in await self._list_due(until=moment):
            if await self._take_turn(run_id, thread_id, until=moment):
                threads[thread_id] = None
        next_due = await self._find_next_due()
        return list(threads), None if next_due is None else to_datetime(next_due)

    _list_due = reading(delays_sql.list_due)
    _take_turn = writing(delays_sql.take_turn)
    _find_next_due = reading(delays_sql.find_next_due)
    take_over = writing(resuming_sql.take_over)
    put_back = writing(resuming_sql.put_back)
    list_interrupts = reading(resuming_sql.list_interrupts)
    list_all_interrupts = reading(resuming_sql.list_all_interrupts)
    find_asker = reading(resuming_sql.find_asker)
    stop_run = writing(stopping_sql.stop_run)
    append_events = writing(finishing_sql.append_events)
    interrupted_runs = reading(run_lists_sql.list_running)
    read_queue = reading(run_lists_sql.read_queue)
    get_run = reading(run_lists_sql.get_run)
    list_runs = reading(run_lists_sql.list_runs)

    # Messages and events

    list_messages = reading(messages_sql.list_messages)
    run_messages = reading(messages_sql.run_messages)
    history = reading(messages_sql.history)
    list_events = reading(messages_sql.list_events)
    prune = writing(pruning_sql.prune)

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
