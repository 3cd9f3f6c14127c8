"""Several servers on one database: what each may rely on while the others do the same."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agentflow_server.errors import IdTaken, LeaseLost, NotInterrupted
from agentflow_server.models import (
    ActiveRun,
    Answer,
    Idempotency,
    Interrupt,
    ResumedRun,
    RunOutcome,
)
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_connections import Connection, transaction
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    SUCCESS,
    answer,
    events,
    make_id,
    make_thread,
    new_run,
    start,
    take_turn,
)

REPLICAS = 3
NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)
KEY = Idempotency(key="k1", route="POST /threads", digest="d1")


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[Sequence[PostgresStore]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(PostgresStore(postgres_url, connections=4))
            for _ in range(REPLICAS)
        ]


async def drain(store: PostgresStore, active: ActiveRun | None) -> None:
    """Answer run after run, as a worker does."""
    while active is not None:
        await store.append_events(active, events(active, 1))
        reply = answer(active, f"re: {active.message.content}")
        active = await store.finish_run(active, SUCCESS, [reply], events(active, 2))


@pytest.mark.parametrize("seed", range(4))
async def test_no_message_is_left_waiting_and_none_is_answered_twice(
    replicas: Sequence[PostgresStore], seed: int
) -> None:
    choose = random.Random(seed)
    threads = [(await make_thread(replicas[0])).thread_id for _ in range(3)]

    async def send(n: int) -> None:
        store, thread_id = choose.choice(replicas), choose.choice(threads)
        started = await store.start_run(ALICE, new_run(thread_id, f"m{n}"))
        await drain(store, started.active)

    await asyncio.gather(*(send(n) for n in range(60)))
    assert (await replicas[0].read_queue()).pending == 0
    assert list(await replicas[0].interrupted_runs()) == []
    asked: list[str] = []
    for thread_id in threads:
        listed = (await replicas[1].list_messages(ALICE, thread_id, limit=200)).data
        contents = [str(message.content) for message in listed]
        assert contents[1::2] == [f"re: {content}" for content in contents[::2]]
        asked += contents[::2]
        assert (await replicas[2].get_thread(ALICE, thread_id)).status == "idle"
    assert Counter(asked) == Counter(f"m{n}" for n in range(60))


async def test_of_urgent_messages_that_meet_one_is_left(
    replicas: Sequence[PostgresStore],
) -> None:
    thread = await make_thread(replicas[0])
    active = await start(replicas[0], thread.thread_id)
    urgent = await asyncio.gather(
        *(
            store.start_run(ALICE, new_run(thread.thread_id, on_busy="rollback"))
            for store in replicas
            for _ in range(4)
        )
    )
    cancelled = [run_id for one in urgent for run_id in one.cancelled]
    assert len(set(cancelled)) == len(cancelled) == len(urgent) - 1
    assert all(one.stopping == active.run.run_id for one in urgent)
    last = await replicas[1].finish_run(active, RunOutcome("cancelled", forget=True), [], [])
    assert last is not None
    assert {one.run.run_id for one in urgent} - set(cancelled) == {last.run.run_id}
    assert await replicas[2].finish_run(last, SUCCESS, [], []) is None


async def test_a_question_is_answered_once(replicas: Sequence[PostgresStore]) -> None:
    thread = await make_thread(replicas[0])
    active = await start(replicas[0], thread.thread_id)
    asking = RunOutcome("interrupted", interrupts=[Interrupt(interrupt_id="q", value="?")])
    await replicas[0].finish_run(active, asking, [], events(active, 1))
    answers = await asyncio.gather(
        *(
            store.resume_run(ALICE, thread.thread_id, active.run.run_id, Answer(value=n))
            for n, store in enumerate(replicas * 3)
        ),
        return_exceptions=True,
    )
    (resumed,) = [one.active for one in answers if isinstance(one, ResumedRun)]
    assert resumed is not None
    assert [type(one) for one in answers].count(NotInterrupted) == len(answers) - 1
    assert resumed.last_seq == 1
    assert list(await replicas[1].interrupted_runs()) == [resumed]


async def test_the_next_owner_of_a_run_knows_every_event_of_the_one_before(
    replicas: Sequence[PostgresStore],
) -> None:
    for _ in range(10):
        thread = await make_thread(replicas[0])
        active = await start(replicas[0], thread.thread_id)

        async def tell(active: ActiveRun = active) -> int:
            for seq in range(1, 100):
                try:
                    await replicas[0].append_events(active, events(active, seq))
                except LeaseLost:
                    return seq - 1
            return 99

        telling = asyncio.create_task(tell())
        while not await replicas[1].list_events(active.run.run_id, after=2, limit=1):
            pass
        taken = await replicas[1].take_over(active)
        told = await telling
        stored = await replicas[2].list_events(active.run.run_id, after=0, limit=200)
        assert taken.last_seq == told == len(stored)
        with pytest.raises(LeaseLost):
            await replicas[0].finish_run(active, SUCCESS, [answer(active)], [])


async def test_a_worker_that_wakes_up_too_late_changes_nothing(
    replicas: Sequence[PostgresStore],
) -> None:
    """It was paused while its statement waited for the row that another one was taking."""
    thread = await make_thread(replicas[0])
    active = await start(replicas[0], thread.thread_id)
    locked, go_on = asyncio.Event(), asyncio.Event()

    async def take(connection: Connection) -> None:
        async with transaction(connection):
            changed = await connection.execute("UPDATE runs SET lease = 'new' RETURNING 1")
            await changed.fetchone()
            locked.set()
            await go_on.wait()

    taking = asyncio.create_task(replicas[1].write(take))
    await locked.wait()
    late = [
        asyncio.create_task(replicas[0].append_events(active, events(active, 1))),
        asyncio.create_task(replicas[0].finish_run(active, SUCCESS, [answer(active)], [])),
        asyncio.create_task(replicas[0].take_over(active)),
    ]
    await wait_for_locks(replicas[2], 3)
    go_on.set()
    await taking
    results = await asyncio.gather(*late, return_exceptions=True)
    assert [type(one) for one in results] == [LeaseLost] * 3
    (found,) = await replicas[2].interrupted_runs()
    assert found == replace(active, lease="new")


async def wait_for_locks(store: PostgresStore, count: int) -> None:
    async def waiting(connection: Connection) -> int:
        found = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        row = await found.fetchone()
        return int(row[0])

    async with asyncio.timeout(10):
        while await store.read(waiting) < count:
            pass


async def test_one_key_makes_one_thread(replicas: Sequence[PostgresStore]) -> None:
    made = await asyncio.gather(
        *(
            store.create_thread(ALICE, make_id(), metadata={}, idempotency=KEY)
            for store in replicas * 4
        )
    )
    assert len({thread.thread_id for thread in made}) == 1
    assert len((await replicas[0].list_threads(ALICE, limit=9)).data) == 1


async def test_one_id_makes_one_thread(replicas: Sequence[PostgresStore]) -> None:
    thread_id = make_id()
    made = await asyncio.gather(
        *(
            store.create_thread(owner, thread_id, metadata={})
            for store in replicas
            for owner in (ALICE, BOB)
        ),
        return_exceptions=True,
    )
    assert [type(one) for one in made].count(IdTaken) == len(made) - 1


async def test_changes_of_one_thread_are_all_kept(replicas: Sequence[PostgresStore]) -> None:
    thread = await make_thread(replicas[0])
    await asyncio.gather(
        *(
            store.update_thread(ALICE, thread.thread_id, metadata={f"k{n}": n})
            for n, store in enumerate(replicas * 5)
        )
    )
    changed = await replicas[0].get_thread(ALICE, thread.thread_id)
    assert changed.metadata == {f"k{n}": n for n in range(len(replicas) * 5)}


async def test_a_delayed_run_is_released_once(replicas: Sequence[PostgresStore]) -> None:
    thread = await make_thread(replicas[0])
    for n in range(6):
        await replicas[0].start_run(ALICE, new_run(thread.thread_id, f"m{n}", start_after=NOON))
    await asyncio.gather(*(store.release_delayed(NOON) for store in replicas))
    active = await replicas[0].claim_next()
    await drain(replicas[1], active)
    runs = (await replicas[2].list_runs(ALICE, thread.thread_id, limit=99)).data
    assert [run.status for run in runs] == ["success"] * 6


async def test_what_waits_is_claimed_once(replicas: Sequence[PostgresStore]) -> None:
    for _ in range(20):
        thread = await make_thread(replicas[0])
        await replicas[0].start_run(ALICE, new_run(thread.thread_id), claim=False)
    claimed: list[str] = []

    async def claim(store: PostgresStore) -> None:
        while active := await store.claim_next():
            claimed.append(active.run.run_id)

    await asyncio.gather(*(claim(store) for store in replicas * 2))
    assert len(set(claimed)) == len(claimed) == 20


async def test_the_limit_of_an_owner_is_one_for_all_replicas(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(
                PostgresStore(postgres_url, connections=4, runs_per_owner=2)
            )
            for _ in range(REPLICAS)
        ]
        running = Peak()

        async def work(store: PostgresStore, active: ActiveRun | None) -> None:
            while active is not None:
                running.begin()
                await store.append_events(active, events(active, 1))
                running.end()
                following = await store.finish_run(active, SUCCESS, [], [])
                active = following or await store.claim_next()

        async def send(n: int) -> None:
            store = stores[n % REPLICAS]
            thread = await make_thread(store)
            for _ in range(2):
                started = await store.start_run(ALICE, new_run(thread.thread_id))
                await work(store, started.active)

        await asyncio.gather(*(send(n) for n in range(12)))
        # What was refused for the limit's sake goes on with whoever asks next.
        await work(stores[0], await stores[0].claim_next())
        assert running.highest == 2
        assert (await stores[0].read_queue()).pending == 0


class Peak:
    """How many there were at once."""

    def __init__(self) -> None:
        self.now = self.highest = 0

    def begin(self) -> None:
        self.now += 1
        self.highest = max(self.highest, self.now)

    def end(self) -> None:
        self.now -= 1


async def test_a_thread_is_not_deleted_under_a_message_that_arrives(
    replicas: Sequence[PostgresStore],
) -> None:
    outcomes = Counter[str]()
    for _ in range(15):
        thread = await make_thread(replicas[0])
        started, hidden = await asyncio.gather(
            replicas[1].start_run(ALICE, new_run(thread.thread_id)),
            replicas[2].hide_thread(ALICE, thread.thread_id),
            return_exceptions=True,
        )
        assert isinstance(started, BaseException) != isinstance(hidden, BaseException)
        outcomes[type(hidden).__name__] += 1
    assert set(outcomes) <= {"ThreadBusy", "NoneType"}


async def test_a_hot_thread_leaves_connections_for_the_others(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, connections=2) as store:
        hot, other = await make_thread(store), await make_thread(store)
        locked, go_on = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with PostgresStore(postgres_url, connections=1) as stranger:

                async def lock(connection: Connection) -> None:
                    async with transaction(connection):
                        found = await connection.execute(
                            "SELECT 1 FROM threads WHERE thread_id = %s FOR UPDATE",
                            (hot.thread_id,),
                        )
                        await found.fetchone()
                        locked.set()
                        await go_on.wait()

                await stranger.write(lock)

        holding = asyncio.create_task(hold())
        await locked.wait()
        waiting = [
            asyncio.create_task(store.start_run(ALICE, new_run(hot.thread_id))) for _ in range(9)
        ]
        await take_turn(store, other.thread_id, "Hello", "Hi")
        assert not any(task.done() for task in waiting)
        go_on.set()
        await holding
        started = await asyncio.gather(*waiting)
        assert [one.active is not None for one in started] == [True] + [False] * 8
