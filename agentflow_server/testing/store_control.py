"""What every Store has to get right about runs that are stopped or change hands."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from dataclasses import replace

import pytest

from agentflow_server.errors import (
    LeaseLost,
    NotFound,
    RunEnded,
)
from agentflow_server.interfaces import Store
from agentflow_server.models import (
    ActiveRun,
    Answer,
    Idempotency,
    RunOutcome,
    RunStatus,
    Stop,
)
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    FAILURE,
    SUCCESS,
    answer,
    ask,
    asking,
    claim,
    events,
    list_contents,
    look_at,
    make_id,
    make_thread,
    new_run,
    resume,
    start,
    take_turn,
)

KEY = Idempotency(key="k1", route="POST /threads/{id}/messages", digest="d1")
CANCELLED = RunOutcome("cancelled")
FORGOTTEN = RunOutcome("cancelled", forget=True)


class ControlTests:
    # Stopping

    @pytest.mark.parametrize("how", ["cancel", "rollback"])
    async def test_a_waiting_run_that_is_stopped_ends_at_once(
        self, store: Store, how: Stop
    ) -> None:
        thread = await make_thread(store)
        await start(store, thread.thread_id)
        waiting = (await store.start_run(ALICE, new_run(thread.thread_id))).run
        stopped = await store.stop_run(ALICE, thread.thread_id, waiting.run_id, how)
        assert (stopped.status, stopped.started_at, stopped.error) == ("cancelled", None, None)
        assert stopped.ended_at is not None
        assert stopped.ended_at >= stopped.created_at
        assert stopped.queue_position is None
        assert await store.get_run(ALICE, thread.thread_id, waiting.run_id) == stopped
        (event,) = await store.list_events(waiting.run_id, after=0, limit=9)
        assert (event.run_id, event.seq, event.type) == (waiting.run_id, 1, "run.cancelled")
        assert event.data == {
            "thread_id": thread.thread_id,
            "run_id": waiting.run_id,
            "status": "cancelled",
        }
        with pytest.raises(RunEnded):
            await store.stop_run(ALICE, thread.thread_id, waiting.run_id, how)

    async def test_a_run_that_was_stopped_in_line_is_passed_over(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        first = await store.start_run(ALICE, new_run(thread.thread_id, "first"))
        await store.start_run(ALICE, new_run(thread.thread_id, "second"))
        await store.stop_run(ALICE, thread.thread_id, first.run.run_id, "cancel")
        following = await store.finish_run(active, SUCCESS, [], [])
        assert following is not None
        assert following.message.content == "second"
        assert await store.finish_run(following, SUCCESS, [], []) is None

    @pytest.mark.parametrize("how", ["cancel", "rollback"])
    async def test_a_running_run_is_told_and_left_to_its_worker(
        self, store: Store, how: Stop
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        assert await store.stop_run(ALICE, thread.thread_id, active.run.run_id, how) == active.run
        assert list(await store.interrupted_runs()) == [replace(active, stopping=how)]
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"
        await store.append_events(active, events(active, 1))
        await store.finish_run(active, CANCELLED, [answer(active, "so far")], [])
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert run.status == "cancelled"
        assert await list_contents(store, thread.thread_id) == ["Hello", "so far"]

    @pytest.mark.parametrize(
        ("first", "second", "kept"),
        [
            ("cancel", "cancel", "cancel"),
            ("cancel", "rollback", "rollback"),
            ("rollback", "cancel", "rollback"),
        ],
    )
    async def test_a_rollback_beats_a_cancel(
        self, store: Store, first: Stop, second: Stop, kept: Stop
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.stop_run(ALICE, thread.thread_id, active.run.run_id, first)
        await store.stop_run(ALICE, thread.thread_id, active.run.run_id, second)
        (found,) = await store.interrupted_runs()
        assert found.stopping == kept

    async def test_a_stop_that_came_too_late_does_not_outlive_a_question(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        run_id = active.run.run_id
        await store.stop_run(ALICE, thread.thread_id, run_id, "rollback")
        await store.finish_run(active, asking("q1"), [], [])
        resumed = await resume(store, thread.thread_id, run_id, Answer(value=1))
        assert resumed.stopping is None

    @pytest.mark.parametrize("ended", ["success", "error", "cancelled", "timeout", "interrupted"])
    async def test_what_has_ended_is_not_stopped(self, store: Store, ended: RunStatus) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        outcome = asking("q1") if ended == "interrupted" else RunOutcome(ended)
        await store.finish_run(active, outcome, [answer(active)], [])
        before = await look_at(store, thread.thread_id)
        for how in ("cancel", "rollback"):
            with pytest.raises(RunEnded):
                await store.stop_run(ALICE, thread.thread_id, active.run.run_id, how)
        assert await look_at(store, thread.thread_id) == before

    async def test_nobody_stops_what_he_cannot_see(self, store: Store) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        active = await start(store, thread.thread_id)
        waiting = (await store.start_run(ALICE, new_run(thread.thread_id))).run
        before = await look_at(store, thread.thread_id)
        for owner, thread_id, run_id in (
            (BOB, thread.thread_id, active.run.run_id),
            (BOB, thread.thread_id, waiting.run_id),
            (ALICE, other.thread_id, waiting.run_id),
            (ALICE, thread.thread_id, make_id()),
            (ALICE, make_id(), waiting.run_id),
        ):
            with pytest.raises(NotFound):
                await store.stop_run(owner, thread_id, run_id, "rollback")
        assert await look_at(store, thread.thread_id) == before

    async def test_nothing_is_stopped_on_a_deleted_thread(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.finish_run(active, SUCCESS, [], [])
        await store.hide_thread(ALICE, thread.thread_id)
        with pytest.raises(NotFound):
            await store.stop_run(ALICE, thread.thread_id, active.run.run_id, "cancel")

    async def test_stopping_the_last_waiting_run_frees_the_thread(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        waiting = [await store.start_run(ALICE, new_run(thread.thread_id)) for _ in range(2)]
        await store.finish_run(active, SUCCESS, [], [], claim_next=False)
        left = []
        for one in waiting:
            await store.stop_run(ALICE, thread.thread_id, one.run.run_id, "cancel")
            left.append((await store.get_thread(ALICE, thread.thread_id)).status)
        assert left == ["busy", "idle"]
        assert await store.claim_next() is None
        await store.hide_thread(ALICE, thread.thread_id)

    async def test_a_thread_asks_again_when_what_waited_behind_the_question_is_stopped(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        waiting = await store.start_run(ALICE, new_run(thread.thread_id))
        await store.finish_run(active, asking("q1"), [], [], claim_next=False)
        await store.stop_run(ALICE, thread.thread_id, waiting.run.run_id, "rollback")
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("interrupted", asking("q1").interrupts)

    # Forgetting

    async def test_a_waiting_message_is_kept_or_forgotten(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "one")
        kept = (await store.start_run(ALICE, new_run(thread.thread_id, "kept"))).run
        forgotten = (await store.start_run(ALICE, new_run(thread.thread_id, "forgotten"))).run
        await store.start_run(ALICE, new_run(thread.thread_id, "last"))
        await store.stop_run(ALICE, thread.thread_id, kept.run_id, "cancel")
        await store.stop_run(ALICE, thread.thread_id, forgotten.run_id, "rollback")
        assert await list_contents(store, thread.thread_id) == ["one", "kept", "last"]
        assert len(await store.run_messages(kept.run_id)) == 1
        assert list(await store.run_messages(forgotten.run_id)) == []
        following = await store.finish_run(active, SUCCESS, [], [])
        assert following is not None
        history = await store.history(following, limit=None)
        assert [message.content for message in history] == ["one", "kept", "last"]

    async def test_a_forgotten_turn_leaves_its_run_and_no_message(self, store: Store) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "one", "1")
        active = await start(store, thread.thread_id, "two")
        await store.start_run(ALICE, new_run(thread.thread_id, "three"))
        following = await store.finish_run(
            active, FORGOTTEN, [answer(active, "2")], events(active, 1)
        )
        assert await list_contents(store, thread.thread_id) == ["one", "1", "three"]
        assert list(await store.run_messages(active.run.run_id)) == []
        assert following is not None
        history = await store.history(following, limit=None)
        assert [message.content for message in history] == ["one", "1", "three"]
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert run.status == "cancelled"
        listed = (await store.list_runs(ALICE, thread.thread_id, limit=9)).data
        assert [one.run_id for one in listed][1] == run.run_id
        assert list(await store.list_events(run.run_id, after=0, limit=9)) == events(active, 1)

    async def test_a_turn_is_forgotten_with_what_it_said_before_its_question(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.finish_run(active, asking("q1"), [answer(active, "before")], [])
        run_id = active.run.run_id
        resumed = await resume(store, thread.thread_id, run_id, Answer(value=1))
        await store.finish_run(resumed, FORGOTTEN, [answer(resumed, "after")], [])
        assert await list_contents(store, thread.thread_id) == []
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"

    async def test_a_thread_without_its_first_turn_goes_on(self, store: Store) -> None:
        thread = await make_thread(store)
        await store.finish_run(await start(store, thread.thread_id, "one"), FORGOTTEN, [], [])
        active = await start(store, thread.thread_id, "two")
        assert list(await store.history(active, limit=None)) == [active.message]
        await store.finish_run(active, SUCCESS, [answer(active, "2")], [])
        assert await list_contents(store, thread.thread_id) == ["two", "2"]

    @pytest.mark.parametrize("how", ["cancel", "rollback"])
    async def test_only_a_message_that_is_kept_is_replayed(self, store: Store, how: Stop) -> None:
        thread = await make_thread(store)
        await start(store, thread.thread_id)
        waiting = await store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)
        await store.stop_run(ALICE, thread.thread_id, waiting.run.run_id, how)
        again = store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)
        if how == "rollback":
            with pytest.raises(NotFound):
                await again
        else:
            replay = await again
            assert (replay.replayed, replay.message) == (True, waiting.message)
            assert replay.run.status == "cancelled"
        assert len((await store.list_runs(ALICE, thread.thread_id, limit=9)).data) == 2

    async def test_a_turn_that_was_forgotten_while_it_ran_is_not_replayed(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        started = await store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)
        assert started.active is not None
        await store.finish_run(started.active, FORGOTTEN, [], [])
        with pytest.raises(NotFound):
            await store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)

    # Changing hands

    async def test_whoever_takes_a_run_over_gets_all_of_it(self, store: Store) -> None:
        thread = await make_thread(store)
        run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        active = await resume(store, thread.thread_id, run_id, Answer(value="yes"))
        await store.append_events(active, events(active, 2, 3))
        await store.stop_run(ALICE, thread.thread_id, run_id, "cancel")
        taken = await store.take_over(active)
        assert taken.lease
        assert taken.lease != active.lease
        run = active.run.model_copy(update={"attempt": 2})
        assert taken == replace(active, run=run, lease=taken.lease, last_seq=3, stopping="cancel")
        assert await store.get_run(ALICE, thread.thread_id, run_id) == run
        assert list(await store.interrupted_runs()) == [taken]
        third = await store.take_over(taken)
        assert third.run.attempt == 3

    async def test_the_old_lease_of_a_run_that_was_taken_over_changes_nothing(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.start_run(ALICE, new_run(thread.thread_id))
        taken = await store.take_over(active)
        before = await look_at(store, thread.thread_id)
        with pytest.raises(LeaseLost):
            await store.take_over(active)
        with pytest.raises(LeaseLost):
            await store.append_events(active, events(active, 1))
        for outcome in (SUCCESS, FAILURE, FORGOTTEN, asking("q1")):
            with pytest.raises(LeaseLost):
                await store.finish_run(active, outcome, [answer(active)], events(active, 1))
        assert await look_at(store, thread.thread_id) == before
        await store.append_events(taken, events(taken, 1))
        assert await store.finish_run(taken, SUCCESS, [answer(taken)], []) is not None

    async def test_a_run_that_is_put_back_is_claimed_before_the_others_of_its_thread(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.start_run(ALICE, new_run(thread.thread_id))
        await store.append_events(active, events(active, 1, 2))
        await store.put_back(active)
        waiting = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert (waiting.status, waiting.attempt, waiting.queue_position) == ("pending", 2, 1)
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"
        assert list(await store.interrupted_runs()) == []
        with pytest.raises(LeaseLost):
            await store.put_back(active)
        with pytest.raises(LeaseLost):
            await store.append_events(active, events(active, 3))
        claimed = await claim(store, thread.thread_id)
        run = active.run.model_copy(update={"attempt": 2})
        assert claimed == replace(active, run=run, lease=claimed.lease, last_seq=2)
        assert await store.claim_next() is None

    async def test_a_wish_to_stop_a_run_outlives_that_it_is_put_back(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.stop_run(ALICE, thread.thread_id, active.run.run_id, "cancel")
        await store.put_back(active)
        assert (await claim(store, thread.thread_id)).stopping == "cancel"

    async def test_one_of_many_takes_a_run_over(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        attempts = await asyncio.gather(
            *(store.take_over(active) for _ in range(5)), return_exceptions=True
        )
        (winner,) = [one for one in attempts if isinstance(one, ActiveRun)]
        assert [type(one) for one in attempts].count(LeaseLost) == 4
        assert list(await store.interrupted_runs()) == [winner]

    @pytest.mark.parametrize("outcome", [SUCCESS, FORGOTTEN, asking("q1")])
    async def test_what_has_ended_is_not_taken_over(
        self, store: Store, outcome: RunOutcome
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.finish_run(active, outcome, [], [])
        with pytest.raises(LeaseLost):
            await store.take_over(active)
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert (run.status, run.attempt) == (outcome.status, 1)
