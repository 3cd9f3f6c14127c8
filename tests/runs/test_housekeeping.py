"""What nobody needs any more goes by itself."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.engines.embedded import EmbeddedEngine
from agentflow_server.events.local import LocalEventBus
from agentflow_server.models import Run
from agentflow_server.runs import housekeeping
from agentflow_server.runs.housekeeping import (
    ABANDONED_AFTER,
    DELIVERY_RETENTION,
    Housekeeper,
    prune,
)
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.runner import Runner
from agentflow_server.runs.worker import Worker
from agentflow_server.stores import grants, rows
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_data import (
    ALICE,
    SUCCESS,
    answer,
    ask,
    events,
    list_contents,
    make_thread,
    start,
)
from agentflow_server.testing.store_grants import make_token

AnyStore = SqliteStore | PostgresStore
PATIENCE = 30
HOUR = 3600.0
WEBHOOK = "https://hook.example/runs"


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyStore]:
    made: Callable[[], AnyStore] = (
        (lambda: SqliteStore(tmp_path / "a.db"))
        if request.param == "sqlite"
        else (lambda: PostgresStore(request.getfixturevalue("postgres_url")))
    )
    async with made() as store:
        yield store


async def run_once(store: AnyStore, **changes: Any) -> Run:
    thread = await make_thread(store)
    active = await start(store, thread.thread_id, **changes)
    await store.finish_run(active, SUCCESS, [answer(active)], events(active, 1, 2))
    return active.run


async def count_events(store: AnyStore, run: Run) -> int:
    return len(await store.list_events(run.run_id, after=0, limit=99))


async def age(store: AnyStore, table: str, column: str, seconds: float) -> None:
    sql = f"UPDATE {table} SET {column} = {column} - {rows.from_seconds(seconds)}"
    if isinstance(store, SqliteStore):
        await store.write(lambda c: c.execute(sql).rowcount)
    else:
        await store.write(lambda c: c.execute(sql))


async def test_events_go_when_they_are_old_and_messages_stay(store: AnyStore) -> None:
    old = await run_once(store)
    asked = await ask(store, (await make_thread(store)).thread_id, "q1")
    await age(store, "runs", "ended_at", 2 * HOUR)
    young = await run_once(store)
    assert await prune(store, store, store, HOUR) == 1
    assert [await count_events(store, run) for run in (old, asked.run, young)] == [0, 1, 2]
    assert await list_contents(store, old.thread_id) == ["Hello", "Hi"]
    assert (await store.get_run(ALICE, old.thread_id, old.run_id)).status == "success"
    assert await prune(store, store, store, HOUR) == 0


async def test_all_of_them_go_a_few_at_a_time(
    store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "AT_ONCE", 2)
    runs = [await run_once(store) for _ in range(5)]
    await age(store, "runs", "ended_at", 2 * HOUR)
    assert await prune(store, store, store, HOUR) == 5
    assert [await count_events(store, run) for run in runs] == [0] * 5


async def test_without_a_retention_events_stay(store: AnyStore) -> None:
    run = await run_once(store)
    await age(store, "runs", "ended_at", 1000 * 86_400.0)
    assert await prune(store, store, store, None) == 0
    assert await count_events(store, run) == 2


async def test_webhooks_that_were_given_up_are_forgotten_in_the_end(store: AnyStore) -> None:
    given_up = await run_once(store, webhook=WEBHOOK)
    delivery = await store.claim_delivery(seconds=60, max_bytes=1000)
    assert delivery is not None
    await store.postpone_delivery(delivery, "status 500", seconds=None)
    due = await run_once(store, webhook=WEBHOOK)
    await age(store, "webhook_deliveries", "ended_at", DELIVERY_RETENTION - HOUR)
    await prune(store, store, store, None)
    left = {found.run_id for found in await store.list_deliveries(limit=9)}
    assert left == {given_up.run_id, due.run_id}
    await age(store, "webhook_deliveries", "ended_at", 2 * HOUR)
    await prune(store, store, store, None)
    assert [found.run_id for found in await store.list_deliveries(limit=9)] == [due.run_id]


async def test_expired_grants_are_forgotten_however_many_they_are(
    store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "AT_ONCE", 2)
    expired, good = [make_token(-HOUR) for _ in range(5)], make_token()
    for token in (*expired, good):
        await store.add_refresh_token(token)
    await prune(store, store, store, None)
    for token in expired:
        assert await store.find_refresh_token(token.token_hash) is None
    assert await store.find_refresh_token(good.token_hash) == good


def echo(messages: Any, config: Any) -> str:
    return "echo"


class Ear(logging.Handler):
    """Hears of lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())

    async def hear(self) -> str:
        return await asyncio.wait_for(self.lines.get(), PATIENCE)


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Any:
    ear = Ear()
    housekeeping.log.addHandler(ear)
    monkeypatch.setattr(housekeeping.log, "level", logging.INFO)
    yield ear
    housekeeping.log.removeHandler(ear)


def make_keeper(store: SqliteStore) -> Housekeeper:
    bus, agents = LocalEventBus(), {"echo": FunctionAgent(echo, name="echo")}
    worker = Worker(store, bus, agents, Namer(store))
    runner = Runner(store, bus, EmbeddedEngine(store, worker, grace=1), agents)
    return Housekeeper(store, store, store, runner, event_retention=HOUR)


async def test_it_is_done_at_the_start_and_again_and_again(
    tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 0.01)
    async with SqliteStore(tmp_path / "a.db") as store:
        first = await run_once(store)
        await age(store, "runs", "ended_at", 2 * HOUR)
        async with make_keeper(store):
            assert await ear.hear() == "deleted the events of 1 runs"
            second = await run_once(store)
            await age(store, "runs", "ended_at", 2 * HOUR)
            assert await ear.hear() == "deleted the events of 1 runs"
            assert [await count_events(store, run) for run in (first, second)] == [0, 0]


async def test_what_somebody_was_deleting_long_ago_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 0.01)
    async with SqliteStore(tmp_path / "a.db") as store:
        old, young = await run_once(store), await run_once(store)
        await store.hide_thread(ALICE, old.thread_id)
        await age(store, "threads", "updated_at", 2 * ABANDONED_AFTER)
        await store.hide_thread(ALICE, young.thread_id)
        async with make_keeper(store), asyncio.timeout(PATIENCE):
            while await store.run_messages(old.run_id):
                await asyncio.sleep(0)
        assert len(await store.run_messages(young.run_id)) == 2


async def test_a_database_that_is_away_makes_it_wait(
    tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 0.01)
    store = SqliteStore(tmp_path / "a.db")
    async with make_keeper(store):
        assert await ear.hear() == "cleaning up has to wait"
        async with store:
            await run_once(store)
            await age(store, "runs", "ended_at", 2 * HOUR)
            while (line := await ear.hear()) != "deleted the events of 1 runs":
                assert line == "cleaning up has to wait"
