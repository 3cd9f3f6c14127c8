"""What becomes of operations when connections, servers and callers go away."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from agentflow_server.errors import InvalidRequest, NotFound, StoreUnavailable
from agentflow_server.stores import postgres_connections, postgres_opening
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.testing.store_data import ALICE, make_id, make_thread, take_turn


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(postgres_url, connections=4) as store:
        await store.write(lambda c: c.execute("CREATE TABLE own (n integer PRIMARY KEY)"))
        yield store


async def insert(connection: Connection, n: int) -> int:
    await connection.execute("INSERT INTO own (n) VALUES (%s)", (n,))
    return n


async def numbers(store: PostgresStore) -> list[int]:
    async def select(connection: Connection) -> list[int]:
        found = await connection.execute("SELECT n FROM own ORDER BY n")
        return [n for (n,) in await found.fetchall()]

    return await store.read(select)


async def setting(store: PostgresStore, name: str) -> str:
    async def show(connection: Connection) -> str:
        (value,) = await (await connection.execute(f"SHOW {name}")).fetchone()
        return str(value)

    return await store.read(show)


# Operations


async def test_a_transaction_is_all_or_nothing(postgres: PostgresStore) -> None:
    async def half_done(connection: Connection) -> None:
        async with transaction(connection):
            await insert(connection, 1)
            await insert(connection, 2)
            raise KeyError("stop here")

    async def done(connection: Connection) -> None:
        async with transaction(connection):
            await insert(connection, 3)

    with pytest.raises(KeyError, match="stop here"):
        await postgres.write(half_done)
    await postgres.write(done)
    assert await numbers(postgres) == [3]


async def test_a_refused_statement_is_unavailable_and_the_next_one_works(
    postgres: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await postgres.read(lambda c: c.execute("SELECT * FROM missing"))
    assert "missing" not in str(caught.value)
    assert 'relation "missing" does not exist' in caplog.text
    await postgres.ping()


async def test_a_text_that_cannot_be_stored_is_the_callers_mistake(
    postgres: PostgresStore,
) -> None:
    with pytest.raises(InvalidRequest):
        await postgres.create_thread("al\0ice", make_id(), metadata={})
    thread = await make_thread(postgres, text="a\0b")
    assert (await postgres.get_thread(ALICE, thread.thread_id)).metadata == {"text": "a\0b"}


async def test_a_cancelled_caller_does_not_stop_what_has_begun(postgres: PostgresStore) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: Connection) -> None:
        entered.set()
        await go_on.wait()
        await insert(connection, 1)

    caller = asyncio.create_task(postgres.write(slow))
    await entered.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    closing = asyncio.create_task(postgres.__aexit__(None, None, None))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await postgres.ping()
    assert not closing.done()
    go_on.set()
    await closing
    await postgres.__aenter__()
    assert await numbers(postgres) == [1]


async def test_an_operation_has_an_end(
    postgres: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "_PATIENCE", 0.1)
    with pytest.raises(StoreUnavailable):
        await postgres.read(lambda c: c.execute("SELECT pg_sleep(60)"))
    monkeypatch.undo()
    await postgres.ping()


async def test_who_finds_no_free_connection_in_time_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_opening, "_WAIT_FOR_CONNECTION", 0.1)
    async with PostgresStore(postgres_url, connections=1) as store:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def slow(connection: Connection) -> None:
            entered.set()
            await go_on.wait()

        holding = asyncio.create_task(store.read(slow))
        await entered.wait()
        with pytest.raises(StoreUnavailable):
            await store.ping()
        go_on.set()
        await holding
        await store.ping()


async def test_the_server_gives_up_on_a_process_that_was_paused(postgres: PostgresStore) -> None:
    assert await setting(postgres, "idle_in_transaction_session_timeout") == "10s"
    assert await setting(postgres, "statement_timeout") == "30s"
    assert await setting(postgres, "application_name") == "agentflow"


async def test_what_the_url_says_itself_is_kept(postgres_url: str) -> None:
    async with PostgresStore(f"{postgres_url}?application_name=chat") as store:
        assert await setting(store, "application_name") == "chat"


async def test_times_are_told_to_an_observer(postgres_url: str) -> None:
    seen: list[tuple[str, float]] = []
    observe = lambda kind, seconds: seen.append((kind, seconds))  # noqa: E731
    async with PostgresStore(postgres_url, observe=observe) as store:
        await make_thread(store)
        with pytest.raises(NotFound):
            await store.get_thread(ALICE, make_id())
    assert [kind for kind, _ in seen] == ["write", "read"]
    assert all(seconds > 0 for _, seconds in seen)


async def test_a_database_that_can_only_be_read_is_not_ready(postgres_url: str) -> None:
    async with (
        PostgresStore(f"{postgres_url}?application_name=ro") as store,
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin,
    ):
        name = admin.info.dbname
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            await admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'ro'"
            )
            with pytest.raises(StoreUnavailable):
                await store.ping()
        finally:
            await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


# Servers


async def test_connections_that_the_server_ended_are_noticed_by_nobody(
    postgres_url: str, postgres: PostgresStore
) -> None:
    thread = await make_thread(postgres)
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
        for _ in range(3):
            await asyncio.gather(*(postgres.ping() for _ in range(8)))
            await admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'agentflow'"
            )
            found = await asyncio.gather(
                *(postgres.get_thread(ALICE, thread.thread_id) for _ in range(8))
            )
            assert found == [thread] * 8


async def test_the_store_recovers_when_the_server_is_back(
    own_postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_opening, "_WAIT_FOR_CONNECTION", 0.5)
    with own_postgres_server.new_database() as url:
        async with PostgresStore(url) as store:
            thread = await make_thread(store)
            own_postgres_server.stop()
            with pytest.raises(StoreUnavailable):
                await store.ping()
            own_postgres_server.start()
            await until_available(store)
            assert await store.get_thread(ALICE, thread.thread_id) == thread


async def until_available(store: PostgresStore) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                return await store.ping()
            except StoreUnavailable:
                pass


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_nothing_acknowledged_is_lost_by_a_restart_under_load(
    own_postgres_server: Any, how: signal.Signals
) -> None:
    """An operation that fails may have happened or not; one that succeeds has."""
    with own_postgres_server.new_database() as url:
        async with PostgresStore(url) as store:
            clients = [Client(store) for _ in range(8)]
            tasks = [asyncio.create_task(client.run()) for client in clients]
            for _ in range(2):
                await wait_for_turns(clients, 5)
                await asyncio.to_thread(own_postgres_server.stop, how)
                await asyncio.to_thread(own_postgres_server.start)
            await wait_for_turns(clients, 5)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in clients:
                await client.check()


class Client:
    """Takes turns in new threads, and remembers those that were acknowledged."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.acknowledged: list[str] = []

    async def run(self) -> None:
        while True:
            try:
                thread = await make_thread(self._store)
                await take_turn(self._store, thread.thread_id, "Hello", "Hi")
            except StoreUnavailable:
                continue
            self.acknowledged.append(thread.thread_id)

    async def check(self) -> None:
        for thread_id in self.acknowledged:
            page = await self._store.list_messages(ALICE, thread_id, limit=9)
            assert [message.content for message in page.data] == ["Hello", "Hi"]


async def wait_for_turns(clients: list[Client], more: int) -> None:
    wanted = [len(client.acknowledged) + more for client in clients]
    async with asyncio.timeout(30):
        while any(
            len(client.acknowledged) < count for client, count in zip(clients, wanted, strict=True)
        ):
            await asyncio.sleep(0.01)
