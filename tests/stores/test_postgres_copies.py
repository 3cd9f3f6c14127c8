"""Copies of threads that are made beside other servers."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from agentflow_server.errors import IdTaken, NotFound, StoreUnavailable, ThreadBusy
from agentflow_server.models import Answer, CopyPoint, Idempotency, Interrupt, RunOutcome
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    SUCCESS,
    answer,
    make_id,
    make_thread,
    new_run,
    start,
    take_turn,
)

ASKING = RunOutcome("interrupted", interrupts=[Interrupt(interrupt_id="q", value="?")])
KEY = Idempotency(key="k1", route="POST /threads/{id}/copy", digest="d1")


@pytest.fixture
async def stores(postgres_url: str) -> AsyncIterator[Sequence[PostgresStore]]:
    async with PostgresStore(postgres_url) as one, PostgresStore(postgres_url) as other:
        yield one, other


async def contents(store: PostgresStore, thread_id: str) -> list[object]:
    page = await store.list_messages(ALICE, thread_id, limit=999)
    return [message.content for message in page.data]


async def test_a_copy_has_what_was_said_and_goes_its_own_way(
    stores: Sequence[PostgresStore],
) -> None:
    store, other = stores
    thread = await make_thread(store, a=1, b=2)
    for n in range(120):
        await take_turn(store, thread.thread_id, f"q{n}", f"a{n}")
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={"a": None, "c": 3})
    with pytest.raises(NotFound):
        await store.get_thread(ALICE, copy.thread_id)
    made = await other.finish_copy(ALICE, copy)
    assert (made.status, made.metadata) == ("idle", {"b": 2, "c": 3})
    said = await contents(store, thread.thread_id)
    assert await contents(other, copy.thread_id) == said
    await take_turn(other, copy.thread_id, "on", "and on")
    assert await contents(store, copy.thread_id) == [*said, "on", "and on"]
    assert await contents(store, thread.thread_id) == said


async def test_a_question_can_be_answered_in_both(stores: Sequence[PostgresStore]) -> None:
    store, other = stores
    thread = await make_thread(store)
    active = await start(store, thread.thread_id)
    await store.finish_run(active, ASKING, [answer(active, "before")], [])
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
    made = await store.finish_copy(ALICE, copy)
    assert (made.status, len(made.interrupts)) == ("interrupted", 1)
    run_id = copy.runs[active.run.run_id]
    resumed = await other.resume_run(ALICE, copy.thread_id, run_id, Answer(value=1))
    assert resumed.active is not None
    assert resumed.active.claims == active.claims
    await other.resume_run(ALICE, thread.thread_id, active.run.run_id, Answer(value=2))


async def test_a_run_that_was_resumed_meanwhile_is_not_in_the_copy(
    stores: Sequence[PostgresStore],
) -> None:
    store, other = stores
    thread = await make_thread(store)
    await take_turn(store, thread.thread_id, "one", "1")
    active = await start(store, thread.thread_id)
    await store.finish_run(active, ASKING, [], [])
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
    await other.resume_run(ALICE, thread.thread_id, active.run.run_id, Answer(value=1))
    made = await store.finish_copy(ALICE, copy)
    assert made.status == "idle"
    assert await contents(store, copy.thread_id) == ["one", "1"]


@pytest.mark.parametrize(
    ("part", "left"),
    [
        ("nothing", ["q0", "a0"]),
        ("question", ["q0", "a0", "q1"]),
        ("everything", ["q0", "a0", "q1", "a1"]),
    ],
)
async def test_a_copy_can_end_at_a_point(
    stores: Sequence[PostgresStore], part: str, left: list[str]
) -> None:
    store, _ = stores
    thread = await make_thread(store)
    for n in range(3):
        await take_turn(store, thread.thread_id, f"q{n}", f"a{n}")
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
    point = CopyPoint(list(copy.runs.values())[1], part)  # type: ignore[arg-type]  # one of them
    await store.finish_copy(ALICE, copy, point=point)
    assert await contents(store, copy.thread_id) == left
    (newest, *_) = (await store.list_runs(ALICE, copy.thread_id, limit=9)).data
    assert newest.status == ("cancelled" if part == "question" else "success")


async def test_an_exact_copy_is_refused_when_the_source_has_changed(
    stores: Sequence[PostgresStore],
) -> None:
    store, other = stores
    thread = await make_thread(store)
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
    assert not copy.busy
    await take_turn(other, thread.thread_id, "Hello", "Hi")
    with pytest.raises(ThreadBusy):
        await store.finish_copy(ALICE, copy, unchanged=True)
    await store.purge_thread(copy.thread_id)
    assert list(await store.list_hidden_threads()) == []


async def test_a_busy_source_is_known_as_such(stores: Sequence[PostgresStore]) -> None:
    store, _ = stores
    thread = await make_thread(store)
    active = await start(store, thread.thread_id)
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
    assert (copy.busy, dict(copy.runs)) == (True, {})
    await store.finish_run(active, SUCCESS, [], [])
    assert (await store.finish_copy(ALICE, copy)).status == "idle"


async def test_a_copy_that_a_server_cleans_up_cannot_be_finished(
    stores: Sequence[PostgresStore],
) -> None:
    store, other = stores
    thread = await make_thread(store)
    await take_turn(store, thread.thread_id, "Hello", "Hi")
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
    empty = await store.begin_copy(
        ALICE, (await make_thread(store)).thread_id, make_id(), metadata={}
    )
    hidden = dict(await other.list_hidden_threads())
    assert hidden == {copy.thread_id: "echo", empty.thread_id: None}
    for lost in (copy, empty):
        with pytest.raises(StoreUnavailable):
            await store.finish_copy(ALICE, lost)


async def test_nobody_copies_what_he_cannot_see(stores: Sequence[PostgresStore]) -> None:
    store, _ = stores
    thread = await make_thread(store)
    with pytest.raises(NotFound):
        await store.begin_copy(BOB, thread.thread_id, make_id(), metadata={})
    with pytest.raises(IdTaken):
        await store.begin_copy(ALICE, thread.thread_id, thread.thread_id, metadata={})


async def test_a_source_that_is_deleted_meanwhile_has_no_copy(
    stores: Sequence[PostgresStore],
) -> None:
    store, other = stores
    thread = await make_thread(store)
    copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
    await other.hide_thread(ALICE, thread.thread_id)
    with pytest.raises(NotFound):
        await store.finish_copy(ALICE, copy)


async def test_one_key_makes_one_copy(stores: Sequence[PostgresStore]) -> None:
    thread = await make_thread(stores[0])
    await stores[0].start_run(ALICE, new_run(thread.thread_id))

    async def make_copy(store: PostgresStore) -> str:
        copy = await store.begin_copy(
            ALICE, thread.thread_id, make_id(), metadata={}, idempotency=KEY
        )
        if copy.replayed:
            return copy.thread_id
        return (await store.finish_copy(ALICE, copy, idempotency=KEY)).thread_id

    made = await asyncio.gather(*(make_copy(stores[n % 2]) for n in range(6)))
    assert len(set(made)) == 1
    assert await make_copy(stores[0]) == made[0]
