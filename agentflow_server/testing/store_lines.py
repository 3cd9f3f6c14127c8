"""What every Store has to get right about messages that meet others in their thread's line."""
# ruff: noqa: S101 - asserting is what a suite is for

import pytest

from agentflow_server.errors import AgentflowError, IdTaken, WrongAgent
from agentflow_server.interfaces import Store
from agentflow_server.models import Idempotency, OnBusy, RunOutcome
from agentflow_server.testing.store_data import (
    ALICE,
    SUCCESS,
    answer,
    list_contents,
    look_at,
    make_thread,
    new_run,
    start,
)

KEY = Idempotency(key="k1", route="POST /threads/{id}/messages", digest="d1")


class LineTests:
    @pytest.mark.parametrize(
        ("on_busy", "told", "left"),
        [
            ("interrupt", "cancel", ["one", "so far", "two", "three", "now"]),
            ("rollback", "rollback", ["now"]),
        ],
    )
    async def test_an_urgent_message_stops_everything_before_it(
        self, store: Store, on_busy: OnBusy, told: str, left: list[str]
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "one")
        waiting = [
            (await store.start_run(ALICE, new_run(thread.thread_id, text))).run
            for text in ("two", "three")
        ]
        urgent = await store.start_run(ALICE, new_run(thread.thread_id, "now", on_busy=on_busy))
        assert (urgent.active, urgent.run.status) == (None, "pending")
        assert urgent.stopping == active.run.run_id
        assert list(urgent.cancelled) == [run.run_id for run in waiting]
        for run in waiting:
            ended = await store.get_run(ALICE, thread.thread_id, run.run_id)
            assert ended.status == "cancelled"
            (event,) = await store.list_events(run.run_id, after=0, limit=9)
            assert (event.seq, event.type) == (1, "run.cancelled")
        (found,) = await store.interrupted_runs()
        assert (found.run, found.stopping) == (active.run, told)
        outcome = RunOutcome("cancelled", forget=told == "rollback")
        following = await store.finish_run(active, outcome, [answer(active, "so far")], [])
        assert following is not None
        assert following.message == urgent.message
        assert await list_contents(store, thread.thread_id) == left

    @pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
    async def test_an_urgent_message_starts_at_once_where_none_is_running(
        self, store: Store, on_busy: OnBusy
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        waiting = (await store.start_run(ALICE, new_run(thread.thread_id))).run
        await store.finish_run(active, SUCCESS, [], [], claim_next=False)
        urgent = await store.start_run(ALICE, new_run(thread.thread_id, on_busy=on_busy))
        assert urgent.active is not None
        assert (urgent.stopping, list(urgent.cancelled)) == (None, [waiting.run_id])
        assert await store.claim_next() is None
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"

    @pytest.mark.parametrize("on_busy", ["interrupt", "rollback", "reject"])
    async def test_on_a_free_thread_there_is_nothing_to_stop(
        self, store: Store, on_busy: OnBusy
    ) -> None:
        thread = await make_thread(store)
        started = await store.start_run(ALICE, new_run(thread.thread_id, on_busy=on_busy))
        assert started.active is not None
        assert (started.stopping, list(started.cancelled)) == (None, [])

    async def test_a_message_that_is_replayed_stops_nothing(self, store: Store) -> None:
        thread = await make_thread(store)
        new = new_run(thread.thread_id, on_busy="rollback")
        first = await store.start_run(ALICE, new, idempotency=KEY)
        await store.start_run(ALICE, new_run(thread.thread_id))
        before = await look_at(store, thread.thread_id)
        again = await store.start_run(
            ALICE, new_run(thread.thread_id, on_busy="rollback"), idempotency=KEY
        )
        assert (again.replayed, again.run) == (True, first.run)
        assert (again.stopping, list(again.cancelled)) == (None, [])
        assert await look_at(store, thread.thread_id) == before

    @pytest.mark.parametrize(
        ("change", "error"), [("agent", WrongAgent), ("run_id", IdTaken), ("message_id", IdTaken)]
    )
    async def test_a_message_that_is_refused_stops_nothing(
        self, store: Store, change: str, error: type[AgentflowError]
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.start_run(ALICE, new_run(thread.thread_id))
        before = await look_at(store, thread.thread_id)
        values = {
            "agent": "other",
            "run_id": active.run.run_id,
            "message_id": active.message.message_id,
        }
        new = new_run(thread.thread_id, on_busy="rollback", **{change: values[change]})
        with pytest.raises(error):
            await store.start_run(ALICE, new)
        assert await look_at(store, thread.thread_id) == before

    async def test_a_waiting_run_knows_its_place_in_the_line(self, store: Store) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        active = await start(store, thread.thread_id)
        await start(store, other.thread_id)
        elsewhere = (await store.start_run(ALICE, new_run(other.thread_id))).run
        waiting = [(await store.start_run(ALICE, new_run(thread.thread_id))).run for _ in range(3)]

        async def places() -> list[int | None]:
            return [
                (await store.get_run(ALICE, thread.thread_id, run.run_id)).queue_position
                for run in (active.run, *waiting)
            ]

        assert await places() == [None, 1, 2, 3]
        assert (await store.get_run(ALICE, other.thread_id, elsewhere.run_id)).queue_position == 1
        await store.stop_run(ALICE, thread.thread_id, waiting[1].run_id, "cancel")
        assert await places() == [None, 1, None, 2]
        await store.finish_run(active, SUCCESS, [], [])
        assert await places() == [None, None, None, 1]
