"""What every Store has to get right about events that have had their time."""
# ruff: noqa: S101 - asserting is what a suite is for

from collections.abc import Sequence
from datetime import datetime, timedelta

from agentflow_server.interfaces import Store
from agentflow_server.models import Answer
from agentflow_server.testing.store_data import (
    ALICE,
    SUCCESS,
    answer,
    ask,
    asking,
    claim,
    events,
    list_contents,
    make_thread,
    new_run,
    resume,
    start,
)

MOMENT = timedelta(microseconds=1)


async def take_turns(store: Store, thread_id: str, count: int) -> Sequence[str]:
    """Their runs' ids, in order; each has two events."""
    run_ids = []
    for _ in range(count):
        active = await start(store, thread_id)
        await store.finish_run(active, SUCCESS, [answer(active)], events(active, 1, 2))
        run_ids.append(active.run.run_id)
    return run_ids


async def end_of(store: Store, thread_id: str, run_id: str) -> datetime:
    run = await store.get_run(ALICE, thread_id, run_id)
    assert run.ended_at is not None
    return run.ended_at


async def after_all(store: Store, thread_id: str) -> datetime:
    """A moment when everything that the thread has seen so far was over."""
    (newest,) = (await store.list_runs(ALICE, thread_id, limit=1)).data
    return (newest.ended_at or newest.created_at) + timedelta(hours=1)


async def count_events(store: Store, *run_ids: str) -> list[int]:
    return [len(await store.list_events(run_id, after=0, limit=99)) for run_id in run_ids]


class PruningTests:
    async def test_old_events_go_and_everything_else_stays(self, store: Store) -> None:
        thread = await make_thread(store)
        run_ids = await take_turns(store, thread.thread_id, 2)
        before = (await store.list_runs(ALICE, thread.thread_id, limit=9)).data
        moment = await after_all(store, thread.thread_id)
        assert await store.prune(events_before=moment, limit=9) == 2
        assert await count_events(store, *run_ids) == [0, 0]
        assert (await store.list_runs(ALICE, thread.thread_id, limit=9)).data == before
        assert await list_contents(store, thread.thread_id) == ["Hello", "Hi"] * 2
        assert await store.prune(events_before=moment, limit=9) == 0

    async def test_events_of_runs_that_ended_later_stay(self, store: Store) -> None:
        thread = await make_thread(store)
        run_ids = await take_turns(store, thread.thread_id, 3)
        second = await end_of(store, thread.thread_id, run_ids[1])
        assert await store.prune(events_before=second, limit=9) == 1
        assert await count_events(store, *run_ids) == [0, 2, 2]
        assert await store.prune(events_before=second + MOMENT, limit=9) == 1
        assert await count_events(store, *run_ids) == [0, 0, 2]

    async def test_so_many_runs_at_a_time_the_oldest_first(self, store: Store) -> None:
        thread = await make_thread(store)
        run_ids = await take_turns(store, thread.thread_id, 5)
        moment = await after_all(store, thread.thread_id)
        for expected in (2, 2, 1, 0):
            assert await store.prune(events_before=moment, limit=2) == expected
            left = await count_events(store, *run_ids)
            assert left == sorted(left)
        assert left == [0] * 5

    async def test_a_run_that_has_not_ended_keeps_its_events(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.append_events(active, events(active, 1, 2))
        await store.start_run(ALICE, new_run(thread.thread_id))
        moment = await after_all(store, thread.thread_id)
        assert await store.prune(events_before=moment, limit=9) == 0
        assert await count_events(store, active.run.run_id) == [2]

    async def test_a_question_keeps_its_events_as_long_as_it_can_be_answered(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        asked = await ask(store, thread.thread_id, "q1")
        run_id = asked.run.run_id
        moment = await after_all(store, thread.thread_id)
        assert await store.prune(events_before=moment, limit=9) == 0
        resumed = await resume(store, thread.thread_id, run_id, Answer(value="yes"))
        assert resumed.last_seq == 1
        await store.finish_run(resumed, SUCCESS, [], events(resumed, 2))
        assert await count_events(store, run_id) == [2]
        assert await store.prune(events_before=moment, limit=9) == 1
        assert await count_events(store, run_id) == [0]

    async def test_a_question_that_was_left_behind_does_not(self, store: Store) -> None:
        thread = await make_thread(store)
        asked = await ask(store, thread.thread_id, "q1")
        run_ids = await take_turns(store, thread.thread_id, 1)
        moment = await after_all(store, thread.thread_id)
        assert [await store.prune(events_before=moment, limit=1) for _ in range(3)] == [1, 1, 0]
        assert await count_events(store, asked.run.run_id, *run_ids) == [0, 0]

    async def test_a_question_that_waits_behind_it_keeps_its_own(self, store: Store) -> None:
        thread = await make_thread(store)
        first = await start(store, thread.thread_id)
        await store.start_run(ALICE, new_run(thread.thread_id))
        await store.finish_run(first, asking("q1"), [], events(first, 1), claim_next=False)
        second = await claim(store, thread.thread_id)
        await store.finish_run(second, asking("q2"), [], events(second, 1))
        moment = await after_all(store, thread.thread_id)
        assert await store.prune(events_before=moment, limit=9) == 1
        assert await count_events(store, first.run.run_id, second.run.run_id) == [0, 1]

    async def test_without_a_moment_all_events_stay(self, store: Store) -> None:
        thread = await make_thread(store)
        run_ids = await take_turns(store, thread.thread_id, 1)
        assert await store.prune(events_before=None, limit=9) == 0
        assert await count_events(store, *run_ids) == [2]

    async def test_a_thread_whose_events_are_gone_can_be_copied_and_deleted(
        self, store: Store
    ) -> None:
        thread, copied = await make_thread(store), "a copy"
        await take_turns(store, thread.thread_id, 2)
        moment = await after_all(store, thread.thread_id)
        await store.prune(events_before=moment, limit=9)
        copy = await store.begin_copy(ALICE, thread.thread_id, copied, metadata={})
        await store.finish_copy(ALICE, copy)
        assert await list_contents(store, copied) == await list_contents(store, thread.thread_id)
        for thread_id in (thread.thread_id, copied):
            await store.hide_thread(ALICE, thread_id)
            await store.purge_thread(thread_id)
        assert await store.prune(events_before=moment, limit=9) == 0
