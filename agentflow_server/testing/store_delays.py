"""What every Store has to get right about runs whose time has not come."""
# ruff: noqa: S101 - asserting is what a suite is for

from datetime import UTC, datetime, timedelta, timezone

import pytest

from agentflow_server.errors import NotFound, NotInterrupted, ThreadBusy
from agentflow_server.interfaces import Store
from agentflow_server.models import ActiveRun, Answer, Idempotency, OnBusy, StartedRun, Stop
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    SUCCESS,
    answer,
    ask,
    asking,
    claim,
    list_contents,
    look_at,
    make_thread,
    new_run,
    resume,
    start,
    take_turn,
)

KEY = Idempotency(key="k1", route="POST /threads/{id}/messages", digest="d1")
NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)
MINUTE, MOMENT = timedelta(minutes=1), timedelta(microseconds=1)


async def delay(
    store: Store, thread_id: str, content: str = "later", until: datetime = NOON
) -> StartedRun:
    return await store.start_run(ALICE, new_run(thread_id, content, start_after=until))


class DelayTests:
    # Before its time

    async def test_a_delayed_run_waits_on_a_free_thread(self, store: Store) -> None:
        thread = await make_thread(store)
        delayed = await delay(store, thread.thread_id)
        assert (delayed.active, delayed.run.status) == (None, "pending")
        assert (delayed.run.started_at, delayed.run.start_after) == (None, NOON)
        run = await store.get_run(ALICE, thread.thread_id, delayed.run.run_id)
        assert run == delayed.run
        assert run.queue_position is None
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"
        assert await store.claim_next() is None
        assert await list_contents(store, thread.thread_id) == ["later"]

    async def test_a_time_is_the_same_moment_in_every_zone(self, store: Store) -> None:
        thread = await make_thread(store)
        there = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
        await delay(store, thread.thread_id, until=there + MOMENT)
        assert await store.release_delayed(NOON) == ([], NOON + MOMENT)

    async def test_a_message_passes_by_a_delayed_one(self, store: Store) -> None:
        thread = await make_thread(store)
        await delay(store, thread.thread_id)
        active = await start(store, thread.thread_id, "now", on_busy="reject")
        assert list(await store.history(active, limit=None)) == [active.message]
        assert await store.finish_run(active, SUCCESS, [], []) is None
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"

    @pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
    async def test_an_urgent_message_leaves_a_delayed_one_alone(
        self, store: Store, on_busy: OnBusy
    ) -> None:
        thread = await make_thread(store)
        await start(store, thread.thread_id)
        delayed = await delay(store, thread.thread_id)
        urgent = await store.start_run(ALICE, new_run(thread.thread_id, on_busy=on_busy))
        assert list(urgent.cancelled) == []
        run = await store.get_run(ALICE, thread.thread_id, delayed.run.run_id)
        assert run == delayed.run

    async def test_a_delayed_message_can_be_refused_by_a_busy_thread(self, store: Store) -> None:
        thread = await make_thread(store)
        await start(store, thread.thread_id)
        before = await look_at(store, thread.thread_id)
        new = new_run(thread.thread_id, on_busy="reject", start_after=NOON)
        with pytest.raises(ThreadBusy):
            await store.start_run(ALICE, new)
        assert await look_at(store, thread.thread_id) == before

    async def test_a_delayed_message_that_empties_the_line_leaves_the_thread_idle(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        waiting = (await store.start_run(ALICE, new_run(thread.thread_id))).run
        await store.finish_run(active, SUCCESS, [], [], claim_next=False)
        new = new_run(thread.thread_id, on_busy="interrupt", start_after=NOON)
        delayed = await store.start_run(ALICE, new)
        assert (delayed.active, list(delayed.cancelled)) == (None, [waiting.run_id])
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"

    async def test_a_question_stays_open_until_the_delayed_run_starts(self, store: Store) -> None:
        thread = await make_thread(store)
        run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        await delay(store, thread.thread_id)
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("interrupted", asking("q1").interrupts)
        await store.release_delayed(NOON)
        assert len((await store.list_interrupts(ALICE, limit=9)).data) == 1
        await claim(store, thread.thread_id)
        with pytest.raises(NotInterrupted):
            await resume(store, thread.thread_id, run_id, Answer(value=1))

    async def test_a_delayed_run_starts_after_a_question_that_was_answered(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        await delay(store, thread.thread_id)
        resumed = await resume(store, thread.thread_id, run_id, Answer(value=1))
        await store.release_delayed(NOON)
        following = await store.finish_run(resumed, SUCCESS, [answer(resumed, "done")], [])
        assert following is not None
        history = await store.history(following, limit=None)
        assert [message.content for message in history] == ["question", "done", "later"]

    # Its time has come

    async def test_a_run_whose_time_has_come_stands_in_line(self, store: Store) -> None:
        thread = await make_thread(store)
        delayed = await delay(store, thread.thread_id)
        assert await store.release_delayed(NOON) == ([thread.thread_id], None)
        run = await store.get_run(ALICE, thread.thread_id, delayed.run.run_id)
        assert (run.status, run.start_after, run.queue_position) == ("pending", None, 1)
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"
        assert (await store.read_queue()).ready == 1
        active = await claim(store, thread.thread_id)
        assert active.message == delayed.message
        assert active.turn == 1
        assert await store.release_delayed(NOON) == ([], None)

    async def test_a_run_is_released_at_its_time_and_not_before(self, store: Store) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        assert await store.release_delayed(NOON) == ([], None)
        await delay(store, other.thread_id, until=NOON + MINUTE)
        await delay(store, thread.thread_id)
        assert await store.release_delayed(NOON - MOMENT) == ([], NOON)
        assert await store.release_delayed(NOON) == ([thread.thread_id], NOON + MINUTE)
        assert await store.release_delayed(NOON + MINUTE) == ([other.thread_id], None)

    async def test_a_conversation_is_in_the_order_in_which_it_was_held(self, store: Store) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "one", "1")
        delayed = await delay(store, thread.thread_id)
        await take_turn(store, thread.thread_id, "two", "2")
        await store.release_delayed(NOON)
        active = await claim(store, thread.thread_id)
        held = ["one", "1", "two", "2", "later"]
        history = await store.history(active, limit=None)
        assert [message.content for message in history] == held
        reply = answer(active, "at last")
        await store.finish_run(active, SUCCESS, [reply], [])
        await take_turn(store, thread.thread_id, "three", "3")
        held += ["at last", "three", "3"]
        assert await list_contents(store, thread.thread_id) == held
        assert list(await store.run_messages(delayed.run.run_id)) == [delayed.message, reply]
        _, second, *_ = (await store.list_runs(ALICE, thread.thread_id, limit=9)).data
        assert second.run_id == delayed.run.run_id

    async def test_a_run_whose_time_has_come_waits_behind_the_others(self, store: Store) -> None:
        thread = await make_thread(store)
        delayed = await delay(store, thread.thread_id)
        active = await start(store, thread.thread_id, "one")
        await store.start_run(ALICE, new_run(thread.thread_id, "two"))
        assert await store.release_delayed(NOON) == ([thread.thread_id], None)
        assert await store.claim_next() is None
        run = await store.get_run(ALICE, thread.thread_id, delayed.run.run_id)
        assert run.queue_position == 2
        executed = []
        following: ActiveRun | None = active
        while following is not None:
            executed.append(following.message.content)
            following = await store.finish_run(following, SUCCESS, [], [])
        assert executed == ["one", "two", "later"]

    @pytest.mark.parametrize(
        ("first", "second", "order"),
        [
            (NOON, NOON + MINUTE, ["first", "second"]),
            (NOON, NOON, ["first", "second"]),
            (NOON + MINUTE, NOON, ["second", "first"]),
        ],
    )
    async def test_delayed_runs_of_a_thread_go_in_order_of_their_times(
        self, store: Store, first: datetime, second: datetime, order: list[str]
    ) -> None:
        thread = await make_thread(store)
        await delay(store, thread.thread_id, "first", until=first)
        await delay(store, thread.thread_id, "second", until=second)
        assert await store.release_delayed(NOON + MINUTE) == ([thread.thread_id], None)
        active = await claim(store, thread.thread_id)
        following = await store.finish_run(active, SUCCESS, [], [])
        assert following is not None
        assert [active.message.content, following.message.content] == order
        assert await list_contents(store, thread.thread_id) == order

    async def test_a_delayed_run_survives_a_restart(self, store: Store) -> None:
        thread = await make_thread(store)
        delayed = await delay(store, thread.thread_id)
        await store.__aexit__(None, None, None)
        await store.__aenter__()
        assert await store.claim_next() is None
        assert await store.release_delayed(NOON) == ([thread.thread_id], None)
        await store.__aexit__(None, None, None)
        await store.__aenter__()
        assert (await store.read_queue()).ready == 1
        assert (await claim(store, thread.thread_id)).run.run_id == delayed.run.run_id

    async def test_a_delayed_message_that_is_sent_again_is_the_same(self, store: Store) -> None:
        thread = await make_thread(store)
        first = await store.start_run(
            ALICE, new_run(thread.thread_id, start_after=NOON), idempotency=KEY
        )
        for until in (NOON - MINUTE, NOON):
            await store.release_delayed(until)
            again = await store.start_run(
                ALICE, new_run(thread.thread_id, start_after=NOON + MINUTE), idempotency=KEY
            )
            assert (again.replayed, again.run.run_id) == (True, first.run.run_id)
            assert again.message == first.message
        assert len((await store.list_runs(ALICE, thread.thread_id, limit=9)).data) == 1

    # It never comes

    async def test_a_thread_can_be_deleted_with_its_delayed_runs(self, store: Store) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        await delay(store, thread.thread_id)
        await delay(store, other.thread_id, until=NOON + MINUTE)
        assert await store.hide_thread(ALICE, thread.thread_id) == "echo"
        assert await store.release_delayed(NOON - MINUTE) == ([], NOON + MINUTE)
        assert await store.release_delayed(NOON) == ([], NOON + MINUTE)
        assert await store.claim_next() is None
        await store.purge_thread(thread.thread_id)
        assert list(await store.list_hidden_threads()) == []
        assert await store.release_delayed(NOON) == ([], NOON + MINUTE)
        await store.create_thread(BOB, thread.thread_id, metadata={})

    @pytest.mark.parametrize(
        ("how", "left"), [("cancel", ["one", "1", "later"]), ("rollback", ["one", "1"])]
    )
    async def test_a_delayed_run_that_is_stopped_never_starts(
        self, store: Store, how: Stop, left: list[str]
    ) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "one", "1")
        run_id = (await delay(store, thread.thread_id)).run.run_id
        with pytest.raises(NotFound):
            await store.stop_run(BOB, thread.thread_id, run_id, how)
        stopped = await store.stop_run(ALICE, thread.thread_id, run_id, how)
        assert (stopped.status, stopped.start_after) == ("cancelled", None)
        (event,) = await store.list_events(run_id, after=0, limit=9)
        assert (event.seq, event.type) == (1, "run.cancelled")
        assert await store.release_delayed(NOON) == ([], None)
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"
        assert await list_contents(store, thread.thread_id) == left
        following = await start(store, thread.thread_id, "two")
        history = await store.history(following, limit=None)
        assert [message.content for message in history] == [*left, "two"]
        newest, *_ = (await store.list_runs(ALICE, thread.thread_id, limit=9)).data
        assert newest.run_id == following.run.run_id
