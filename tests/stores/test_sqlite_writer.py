"""Group commit: what callers of `SqliteStore.write` and `read` can rely on."""

import asyncio
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest

from agentflow_server.errors import NotFound, StoreUnavailable
from agentflow_server.stores import readers, writer
from agentflow_server.stores.readers import Readers
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.writer import Writer


class Gate:
    """An operation that keeps its database thread busy until it is let go."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.opened.wait(10)

    async def wait_until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 10)


@pytest.fixture
async def table(store: SqliteStore) -> None:
    await store.write(lambda c: c.execute("CREATE TABLE own (n INTEGER PRIMARY KEY)").close())


def insert(connection: sqlite3.Connection, n: int) -> int:
    connection.execute("INSERT INTO own (n) VALUES (?)", (n,))
    return n


async def numbers(store: SqliteStore) -> list[int]:
    rows = await store.read(lambda c: c.execute("SELECT n FROM own ORDER BY n").fetchall())
    return [n for (n,) in rows]


@pytest.mark.usefixtures("table")
async def test_operations_that_wait_together_share_one_transaction(store: SqliteStore) -> None:
    statements: list[str] = []
    await store.write(lambda c: c.set_trace_callback(statements.append))
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.wait_until_entered()
    waiting = [asyncio.create_task(store.write(partial(insert, n=n))) for n in range(50)]
    await asyncio.sleep(0)
    gate.opened.set()
    assert await asyncio.gather(*waiting) == list(range(50))
    await held
    # The one that set the callback, the gate, and all the others.
    assert statements.count("COMMIT") == 3
    assert await numbers(store) == list(range(50))


@pytest.mark.usefixtures("table")
async def test_an_operation_that_raises_is_undone_alone(store: SqliteStore) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        insert(connection, 2)
        raise KeyError("stop here")

    results = await asyncio.gather(
        store.write(lambda c: insert(c, 1)),
        store.write(half_done),
        store.write(lambda c: insert(c, 3)),
        return_exceptions=True,
    )
    assert [results[0], results[2]] == [1, 3]
    assert isinstance(results[1], KeyError)
    assert await numbers(store) == [1, 3]


@pytest.mark.usefixtures("table")
async def test_what_an_operation_raises_passes_through_unchanged(store: SqliteStore) -> None:
    await store.write(lambda c: insert(c, 1))
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(lambda c: insert(c, 1))
    with pytest.raises(sqlite3.OperationalError):
        await store.read(lambda c: c.execute("SELECT * FROM missing"))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.write(lambda _: next(iter(())))


@pytest.mark.usefixtures("table")
async def test_a_failed_commit_undoes_the_batch_and_the_next_one_works(store: SqliteStore) -> None:
    def make_orphan(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA defer_foreign_keys = ON")  # found out by COMMIT only
        connection.execute("INSERT INTO run_events VALUES ('no such run', 1, 'x', '{}')")

    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.wait_until_entered()
    batch = [
        asyncio.create_task(store.write(operation))
        for operation in (lambda c: insert(c, 1), make_orphan, lambda c: insert(c, 2))
    ]
    await asyncio.sleep(0)
    gate.opened.set()
    results = await asyncio.gather(*batch, return_exceptions=True)
    await held
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert await numbers(store) == []
    await store.write(lambda c: insert(c, 3))
    assert await numbers(store) == [3]


@pytest.mark.usefixtures("table")
async def test_an_operation_that_ends_the_transaction_is_refused(store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable):
        await store.write(lambda c: c.execute("ROLLBACK").close())
    await store.write(lambda c: insert(c, 1))
    assert await numbers(store) == [1]


@pytest.mark.usefixtures("table")
async def test_a_cancelled_caller_does_not_stop_what_is_queued(store: SqliteStore) -> None:
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.wait_until_entered()
    queued = asyncio.create_task(store.write(lambda c: insert(c, 1)))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    gate.opened.set()
    await held
    await store.ping()
    assert await numbers(store) == [1]


async def test_a_full_queue_refuses_at_once(path: Path) -> None:
    loop = asyncio.get_running_loop()
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for queue in (
        Writer(connection, loop, max_queued=2),
        Readers([connection], loop, max_queued=2),
    ):
        gate = Gate()
        held = queue.submit(gate)
        await gate.wait_until_entered()
        waiting = [queue.submit(lambda _: None) for _ in range(2)]
        with pytest.raises(StoreUnavailable):
            queue.submit(lambda _: None)
        gate.opened.set()
        await asyncio.gather(held, *waiting)
        queue.stop()
    connection.close()
    assert writer.MAX_QUEUED == readers.MAX_QUEUED


async def test_closing_writes_what_is_queued(path: Path) -> None:
    gate = Gate()
    async with SqliteStore(path) as store:
        held = asyncio.create_task(store.write(gate))
        await gate.wait_until_entered()
        queued = [
            asyncio.create_task(store.create_thread("alice", f"t{n}", metadata={}))
            for n in range(5)
        ]
        await asyncio.sleep(0)
        threading.Timer(0, gate.opened.set).start()
    await asyncio.gather(held, *queued)
    async with SqliteStore(path) as store:
        assert len((await store.list_threads("alice", limit=9)).data) == 5


async def test_a_read_sees_every_write_awaited_before_and_one_snapshot(store: SqliteStore) -> None:
    await store.create_thread("alice", "t1", metadata={})
    count = "SELECT count(*) FROM threads"
    entered, opened = threading.Event(), threading.Event()

    def read_twice(connection: sqlite3.Connection) -> tuple[int, int]:
        (before,) = connection.execute(count).fetchone()
        entered.set()
        assert opened.wait(10)
        (after,) = connection.execute(count).fetchone()
        return before, after

    long_read = asyncio.create_task(store.read(read_twice))
    assert await asyncio.to_thread(entered.wait, 10)
    await store.create_thread("alice", "t2", metadata={})  # a long read delays no writer
    assert (await store.get_thread("alice", "t2")).thread_id == "t2"  # and no other reader
    opened.set()
    assert await long_read == (1, 1)


async def test_a_read_that_nobody_waits_for_is_skipped(store: SqliteStore) -> None:
    gates = [Gate() for _ in range(3)]
    held = [asyncio.create_task(store.read(gate)) for gate in gates]
    for gate in gates:
        await gate.wait_until_entered()
    ran = threading.Event()
    unwanted = asyncio.create_task(store.read(lambda _: ran.set()))
    await asyncio.sleep(0)
    unwanted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unwanted
    for gate in gates:
        gate.opened.set()
    await asyncio.gather(*held)
    await store.ping()
    assert not ran.is_set()


async def test_a_reader_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store.read(lambda c: c.execute("DELETE FROM threads"))


async def test_a_full_disk_is_unavailable_and_nothing_is_half_written(store: SqliteStore) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}").close()

    await store.create_thread("alice", "t1", metadata={})
    await store.write(fill)
    with pytest.raises(StoreUnavailable):
        await store.create_thread("alice", "t2", metadata={"big": "x" * 100_000})
    with pytest.raises(NotFound):
        await store.get_thread("alice", "t2")
    await store.write(lambda c: c.execute("PRAGMA max_page_count = 1000000").close())
    await store.create_thread("alice", "t2", metadata={"big": "x" * 100_000})


async def test_a_store_that_can_only_read_is_not_ready(store: SqliteStore) -> None:
    await store.ping()
    await store.write(lambda c: c.execute("PRAGMA query_only = ON").close())
    with pytest.raises(StoreUnavailable):
        await store.ping()


async def test_a_database_that_broke_is_unavailable_for_readers_too(store: SqliteStore) -> None:
    await store.write(lambda c: c.execute("ALTER TABLE threads RENAME TO gone").close())
    with pytest.raises(StoreUnavailable):
        await store.get_thread("alice", "t1")
    with pytest.raises(StoreUnavailable):
        await store.create_thread("alice", "t1", metadata={})


def test_a_loop_that_ended_without_closing_harms_nobody(path: Path) -> None:
    store = SqliteStore(path)
    gate = Gate()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.__aenter__())
    write = loop.create_task(store.write(gate))
    loop.run_until_complete(gate.wait_until_entered())
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(write)
    loop.close()
    gate.opened.set()
    assert store._open is not None
    store._open.stop()
