"""What every Store has to get right about runs that are answered where nobody has room for them."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from dataclasses import replace

import pytest

from agentflow_server.errors import NotInterrupted, ThreadBusy
from agentflow_server.interfaces import Store
from agentflow_server.models import ActiveRun, Answer, OnBusy, RunOutcome
from agentflow_server.testing.store_data import (
    ALICE,
    SUCCESS,
    answer,
    ask,
    asking,
    claim,
    events,
    list_contents,
    make_id,
    make_thread,
    new_run,
    start,
    take_turn,
)

YES = Answer(value="yes")


async def wait_answered(store: Store, active: ActiveRun) -> None:
    """Answer a run that asks where nobody has room for it."""
    run = active.run
    resumed = await store.resume_run(ALICE, run.thread_id, run.run_id, YES, claim=False)
    assert resumed.active is None


class WaitingTests:
    async def test_an_answered_run_that_nobody_can_execute_waits_with_its_answer(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        run_id = active.run.run_id
        resumed = await store.resume_run(ALICE, thread.thread_id, run_id, YES, claim=False)
        assert (resumed.active, resumed.last_seq) == (None, 1)
        waiting = active.run.model_copy(update={"status": "pending", "queue_position": 1})
        assert resumed.run == waiting
        assert await store.get_run(ALICE, thread.thread_id, run_id) == waiting
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("busy", [])
        assert (await store.list_interrupts(ALICE, limit=9)).data == []
        assert list(await store.interrupted_runs()) == []
        with pytest.raises(NotInterrupted):
            await store.resume_run(ALICE, thread.thread_id, run_id, YES)
        with pytest.raises(ThreadBusy):
            await store.hide_thread(ALICE, thread.thread_id)

    async def test_an_answered_run_that_waits_is_claimed_like_any_other(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        await wait_answered(store, active)
        await store.__aexit__(None, None, None)
        await store.__aenter__()
        claimed = await claim(store, thread.thread_id)
        assert list(claimed.answers) == [{"q1": "yes"}]
        assert claimed.lease
        assert claimed.lease != active.lease
        expected = replace(active, lease=claimed.lease, last_seq=1, answers=claimed.answers)
        assert claimed == expected
        assert await store.claim_next() is None
        await store.finish_run(claimed, SUCCESS, [answer(claimed)], events(claimed, 2))
        assert await list_contents(store, thread.thread_id) == ["question", "Hi"]
        stored = await store.list_events(active.run.run_id, after=0, limit=9)
        assert [event.seq for event in stored] == [1, 2]

    @pytest.mark.parametrize("on_busy", ["enqueue", "reject"])
    async def test_an_answered_run_that_waits_goes_before_the_others_of_its_thread(
        self, store: Store, on_busy: OnBusy
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "one")
        before = (await store.start_run(ALICE, new_run(thread.thread_id, "before"))).run
        await store.finish_run(active, asking("q1"), [], [], claim_next=False)
        await wait_answered(store, active)
        new = new_run(thread.thread_id, "after", on_busy=on_busy)
        if on_busy == "reject":
            with pytest.raises(ThreadBusy):
                await store.start_run(ALICE, new)
            return
        after = (await store.start_run(ALICE, new)).run
        places = [
            (await store.get_run(ALICE, thread.thread_id, run.run_id)).queue_position
            for run in (active.run, before, after)
        ]
        assert places == [1, 2, 3]
        claimed = await claim(store, thread.thread_id)
        assert claimed.run.run_id == active.run.run_id
        assert await store.claim_next() is None
        following = await store.finish_run(claimed, SUCCESS, [], [])
        assert following is not None
        assert following.run.run_id == before.run_id

    async def test_an_answered_run_that_waits_may_ask_again(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        await wait_answered(store, active)
        claimed = await claim(store, thread.thread_id)
        await store.finish_run(claimed, asking("q2"), [], [])
        await wait_answered(store, active)
        claimed = await claim(store, thread.thread_id)
        assert list(claimed.answers) == [{"q1": "yes"}, {"q2": "yes"}]

    async def test_an_answered_run_that_waits_is_cancelled_after_what_it_has_said(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "question")
        said = [answer(active, "so far")]
        await store.finish_run(active, asking("q1"), said, events(active, 1, 2))
        await wait_answered(store, active)
        run_id = active.run.run_id
        stopped = await store.stop_run(ALICE, thread.thread_id, run_id, "cancel")
        assert (stopped.status, stopped.started_at) == ("cancelled", active.run.started_at)
        stored = await store.list_events(run_id, after=0, limit=9)
        assert [event.seq for event in stored] == [1, 2, 3]
        assert (stored[-1].type, stored[-1].data["status"]) == ("run.cancelled", "cancelled")
        assert await list_contents(store, thread.thread_id) == ["question", "so far"]
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"
        assert await store.claim_next() is None
        with pytest.raises(NotInterrupted):
            await store.resume_run(ALICE, thread.thread_id, run_id, YES)

    async def test_what_has_begun_is_rolled_back_by_who_knows_its_agent(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        await wait_answered(store, active)
        run_id = active.run.run_id
        for how in ("rollback", "cancel"):
            marked = await store.stop_run(ALICE, thread.thread_id, run_id, how)
            assert (marked.status, marked.queue_position) == ("pending", 1)
        claimed = await claim(store, thread.thread_id)
        assert claimed.stopping == "rollback"
        await store.finish_run(claimed, RunOutcome("cancelled", forget=True), [], [])
        assert await list_contents(store, thread.thread_id) == []

    @pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
    async def test_an_urgent_message_stops_an_answered_run_that_waits(
        self, store: Store, on_busy: OnBusy
    ) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        await wait_answered(store, active)
        waiting = (await store.start_run(ALICE, new_run(thread.thread_id))).run
        urgent = await store.start_run(ALICE, new_run(thread.thread_id, "now", on_busy=on_busy))
        run_id = active.run.run_id
        if on_busy == "interrupt":
            assert urgent.active is not None
            assert (urgent.stopping, list(urgent.cancelled)) == (None, [run_id, waiting.run_id])
            return
        assert (urgent.active, urgent.stopping) == (None, run_id)
        assert list(urgent.cancelled) == [waiting.run_id]
        claimed = await claim(store, thread.thread_id)
        assert (claimed.run.run_id, claimed.stopping) == (run_id, "rollback")
        following = await store.finish_run(
            claimed, RunOutcome("cancelled", forget=True), [], events(claimed, 2)
        )
        assert following is not None
        assert following.run.run_id == urgent.run.run_id

    async def test_of_two_who_claim_an_answered_run_one_gets_it(self, store: Store) -> None:
        thread = await make_thread(store)
        await wait_answered(store, await ask(store, thread.thread_id, "q1"))
        claimed = await asyncio.gather(*(store.claim_next() for _ in range(5)))
        assert [one is None for one in claimed].count(False) == 1

    async def test_an_answered_run_that_waits_is_in_no_copy(self, store: Store) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "one", "1")
        await wait_answered(store, await ask(store, thread.thread_id, "q1"))
        copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
        assert copy.busy
        await store.finish_copy(ALICE, copy)
        assert await list_contents(store, copy.thread_id) == ["one", "1"]
