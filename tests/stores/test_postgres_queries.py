"""The statements behind long lists use their index; what happens in every turn is one round trip."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from agentflow_server.errors import InvalidRequest
from agentflow_server.models import QueueState
from agentflow_server.stores import (
    postgres_delays,
    postgres_lines,
    postgres_messages,
    postgres_pruning,
    postgres_resuming,
    postgres_run_lists,
)
from agentflow_server.stores.cursors import encode_cursor
from agentflow_server.stores.operators import Selection, to_postgres
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.postgres_threads import select_threads
from agentflow_server.stores.rules import MAX_FILTERS
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    SUCCESS,
    answer,
    events,
    make_thread,
    new_run,
    start,
    take_turn,
)

PLACE = encode_cursor("threads:alice", 1, "t")


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(postgres_url, connections=1) as store:
        yield store


async def explain(
    store: PostgresStore, sql: str, parameters: Sequence[Any] | Mapping[str, Any]
) -> str:
    """How it would go about a long table: an empty one is read as a whole, if that is allowed."""

    async def read(connection: Connection) -> str:
        await connection.execute("SET enable_seqscan = off")
        found = await connection.execute(f"EXPLAIN {sql}", parameters)
        return "\n".join(line for (line,) in await found.fetchall())

    return await store.read(read)


@pytest.mark.parametrize("cursor", [None, PLACE])
@pytest.mark.parametrize("status", [None, "idle"])
@pytest.mark.parametrize("metadata", [None, {"a": 1, "b": {"c": 2}}])
async def test_listing_threads_follows_an_index(
    postgres: PostgresStore, cursor: str | None, status: Any, metadata: Any
) -> None:
    statement, values = select_threads("alice", cursor=cursor, status=status, metadata=metadata)
    plan = await explain(postgres, f"{statement} LIMIT 9", values)
    assert "Index Scan using threads_by_owner" in plan
    assert "Sort" not in plan


LINE = {"thread_id": "t", "per_owner": 2, "next_lease": "l", "now": 1}


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        (postgres_messages.EARLIER, ("t", 9, None), "messages_pkey"),
        (postgres_messages.PAGE, ("t", 0, -1, 9), "messages_pkey"),
        (postgres_messages.OF_RUN, ("r",), "messages_pkey"),
        (postgres_messages.EVENTS, ("r", 0, 9), "run_events_pkey"),
        (postgres_run_lists.PAGE, ("t", 9, 9), "runs_thread_id_turn_key"),
        (postgres_run_lists.ALL_RUNNING, (), "runs_running"),
        (postgres_run_lists.QUEUE, (), "runs_pending"),
        (postgres_lines.CLAIM_RUN, LINE, "runs_pending"),
        (postgres_lines.CLAIM_RUN, LINE, "runs_running_of_owner"),
        (postgres_lines.CLAIMABLE, {"per_owner": 2}, "runs_pending"),
        (postgres_delays.DUE, (1,), "runs_delayed"),
        (postgres_delays.NEXT_DUE, (), "runs_delayed"),
        (postgres_pruning.ENDED, (9, 9), "runs_ended"),
        (postgres_pruning.LEFT_BEHIND, (9, 9), "runs_interrupted"),
        (postgres_resuming.PAGE, ("alice", 1, "", 9), "threads_interrupted"),
    ],
)
async def test_long_tables_are_never_scanned(
    postgres: PostgresStore, sql: str, values: Any, index: str
) -> None:
    plan = await explain(postgres, sql, values)
    assert index in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    ("status", "owner", "thread_id", "indexes"),
    [
        (None, None, None, ["runs_pkey"]),
        ("error", None, None, ["runs_pkey"]),
        ("running", None, None, ["runs_running"]),
        ("pending", None, None, ["runs_pending", "runs_delayed"]),
        (None, None, "t", ["runs_thread_id_turn_key"]),
    ],
)
async def test_operators_find_runs_through_an_index(
    postgres: PostgresStore,
    status: Any,
    owner: str | None,
    thread_id: str | None,
    indexes: Sequence[str],
) -> None:
    selection = Selection(
        status=status, owner=owner, thread_id=thread_id, before=None, limit=9, cursor=None
    )
    plan = await explain(postgres, to_postgres(selection.sql), selection.values)
    assert [index for index in indexes if index not in plan] == []
    assert "Seq Scan" not in plan


async def test_a_very_long_table_is_not_counted(postgres: PostgresStore) -> None:
    thread = await make_thread(postgres)
    await take_turn(postgres, thread.thread_id, "Hello", "Hi")
    statistics = "UPDATE pg_class SET reltuples = %s WHERE oid = 'messages'::regclass"
    for known, told in ((-1, 2), (5, 2), (3e9, 3_000_000_000)):
        await postgres.write(lambda c, known=known: c.execute(statistics, (known,)))
        assert (await postgres.count_rows())["messages"] == told


class Proxy:
    """Stands between client and server, and counts how often the client speaks anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client_spoke_last = False
        self._conversations: list[asyncio.Task[None]] = []
        self.round_trips = 0

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[int]:
        """Its own port. At the end, waits for the clients to go."""
        async with await asyncio.start_server(self._connect, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]
            await asyncio.gather(*self._conversations)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._conversations.append(asyncio.current_task())  # type: ignore[arg-type]  # is one
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(
            self._pass_on(reader, server_writer, from_client=True),
            self._pass_on(server_reader, writer, from_client=False),
        )

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        while data := await reader.read(65536):
            if from_client and not self._client_spoke_last:
                self.round_trips += 1
            self._client_spoke_last = from_client
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def test_what_happens_in_every_turn_is_one_round_trip_each(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    assert parts.port is not None
    proxy = Proxy(parts.port)
    trips: dict[str, set[int]] = {}

    async def count(name: str, work: Awaitable[Any]) -> Any:
        before = proxy.round_trips
        result = await work
        trips.setdefault(name, set()).add(proxy.round_trips - before)
        return result

    async with proxy.listen() as port:
        url = postgres_url.replace(f":{parts.port}/", f":{port}/")
        async with PostgresStore(url, connections=1) as store:
            for turn in range(20):
                if turn == 10:
                    trips.clear()  # the statements are prepared now
                thread = await count("create_thread", make_thread(store))
                active = await count("start_run", start(store, thread.thread_id))
                waiting = new_run(thread.thread_id)
                await count("start_run", store.start_run(ALICE, waiting))
                await count("history", store.history(active, limit=None))
                await count("append_events", store.append_events(active, events(active, 1)))
                reply = [answer(active)]
                following = await count(
                    "finish_run", store.finish_run(active, SUCCESS, reply, events(active, 2))
                )
                await count("finish_run", store.finish_run(following, SUCCESS, [], []))
                listing = store.list_messages(ALICE, thread.thread_id, limit=9)
                await count("list_messages", listing)
    assert trips == {name: {1} for name in trips}


async def test_too_many_filters_are_refused(postgres: PostgresStore) -> None:
    wanted = {f"k{n}": n for n in range(MAX_FILTERS + 1)}
    with pytest.raises(InvalidRequest):
        await postgres.list_threads("alice", limit=1, metadata=wanted)
    del wanted["k0"]
    assert (await postgres.list_threads("alice", limit=1, metadata=wanted)).data == []


async def test_the_queue_is_that_of_all_owners(postgres: PostgresStore) -> None:
    assert await postgres.read_queue() == QueueState(0, 0, 0, 0.0)
    busy, ready, later = [await make_thread(postgres, owner) for owner in (ALICE, BOB, ALICE)]
    await start(postgres, busy.thread_id)
    await postgres.start_run(ALICE, new_run(busy.thread_id))
    await postgres.start_run(BOB, new_run(ready.thread_id), claim=False)
    delayed = new_run(later.thread_id, start_after=datetime(2100, 1, 1, tzinfo=UTC))
    await postgres.start_run(ALICE, delayed)
    state = await postgres.read_queue()
    assert (state.running, state.pending, state.ready) == (1, 3, 1)
    assert 0 < state.oldest_seconds < 60


async def test_a_long_thread_is_purged_in_slices(postgres: PostgresStore) -> None:
    thread, other = await make_thread(postgres), await make_thread(postgres)
    for _ in range(120):
        await take_turn(postgres, thread.thread_id, "Hello", "Hi")
    await take_turn(postgres, other.thread_id, "Hello", "Hi")
    await postgres.hide_thread("alice", thread.thread_id)
    await postgres.purge_thread(thread.thread_id)
    for table, left in (("threads", 1), ("runs", 1), ("messages", 2), ("run_events", 0)):
        assert (table, await count_rows(postgres, table)) == (table, left)


async def count_rows(store: PostgresStore, table: str) -> int:
    async def count(connection: Connection) -> int:
        row = await (await connection.execute(f"SELECT count(*) FROM {table}")).fetchone()
        return int(row[0])

    return await store.read(count)


@pytest.mark.parametrize("limit", [0, 1])
async def test_a_history_limit_below_one_keeps_the_question(
    postgres: PostgresStore, limit: int
) -> None:
    thread = await make_thread(postgres)
    await take_turn(postgres, thread.thread_id, "one", "1")
    active = await start(postgres, thread.thread_id, "two")
    assert list(await postgres.history(active, limit=limit)) == [active.message]
