"""What every Store has to get right about runs and their events."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from agentflow_server.errors import (
    IdempotencyMismatch,
    IdTaken,
    LeaseLost,
    NotFound,
    ThreadBusy,
    WrongAgent,
)
from agentflow_server.interfaces import Store
from agentflow_server.models import (
    ActiveRun,
    Idempotency,
    Message,
    RunError,
    RunOutcome,
    RunStatus,
    StartedRun,
    ThreadStatus,
)
from agentflow_server.testing.store_data import (
    ALICE,
    FAILURE,
    SUCCESS,
    answer,
    claim,
    events,
    make_id,
    make_thread,
    new_run,
    start,
    take_turn,
)

KEY = Idempotency(key="k1", route="POST /threads/{id}/messages", digest="d1")


class RunTests:
    async def test_a_run_on_a_free_thread_is_running_at_once(self, store: Store) -> None:
        thread = await make_thread(store)
        new = new_run(thread.thread_id, "Hello", metadata={"m": 1}, config={"tags": ["a"]})
        started = await store.start_run(ALICE, new)
        run, active = started.run, started.active
        assert (run.run_id, run.status, run.agent) == (new.run_id, "running", "echo")
        assert run.started_at == run.created_at
        assert run.ended_at is None
        assert run.error is None
        assert started.replayed is False
        assert active is not None
        assert (active.owner, active.message, active.run) == (ALICE, started.message, run)
        assert (active.claims, active.config) == (new.claims, new.config)
        assert active.lease
        assert (started.message.role, started.message.content) == ("user", "Hello")
        assert started.message.metadata == {"m": 1}
        assert await store.get_run(ALICE, thread.thread_id, run.run_id) == run
        assert list(await store.run_messages(run.run_id)) == [started.message]
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"

    async def test_a_finished_run_says_when_and_how_it_ended(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        assert await store.finish_run(active, FAILURE, [], []) is None
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert (run.status, run.error) == ("error", FAILURE.error)
        assert run.ended_at is not None
        assert run.ended_at >= run.created_at

    @pytest.mark.parametrize(
        ("ended", "left"),
        [
            ("success", "idle"),
            ("cancelled", "idle"),
            ("error", "error"),
            ("timeout", "error"),
            ("interrupted", "interrupted"),
        ],
    )
    async def test_a_thread_shows_how_its_last_run_ended_and_stays_usable(
        self, store: Store, ended: RunStatus, left: ThreadStatus
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        error = None if ended == "success" else RunError(code="c", detail="d")
        await store.finish_run(active, RunOutcome(ended, error), [], [])
        assert (await store.get_thread(ALICE, thread.thread_id)).status == left
        await take_turn(store, thread.thread_id, "Again", "Yes")
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"

    async def test_overlapping_runs_take_turns_in_order(self, store: Store) -> None:
        thread = await make_thread(store)
        wanted = [new_run(thread.thread_id, f"message {n}") for n in range(6)]
        started = await asyncio.gather(*(store.start_run(ALICE, new) for new in wanted))
        (active,) = [one.active for one in started if one.active]
        executed = await self._drain(store, active)
        assert [one.message.content for one in executed] == [f"message {n}" for n in range(6)]
        assert [one.turn for one in executed] == sorted(one.turn for one in executed)
        assert len({one.lease for one in executed}) == 6
        page = await store.list_messages(ALICE, thread.thread_id, limit=99)
        assert [message.content for message in page.data] == [
            text for n in range(6) for text in (f"message {n}", f"reply to message {n}")
        ]
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"

    async def _drain(self, store: Store, active: ActiveRun | None) -> Sequence[ActiveRun]:
        executed = []
        while active is not None:
            runs = (await store.list_runs(ALICE, active.run.thread_id, limit=99)).data
            assert [run.status for run in runs].count("running") == 1
            assert await store.claim_next() is None
            executed.append(active)
            reply = answer(active, f"reply to {active.message.content}")
            active = await store.finish_run(active, SUCCESS, [reply], [])
        return executed

    async def test_the_thread_is_busy_until_the_last_run_has_ended(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        waiting = await store.start_run(ALICE, new_run(thread.thread_id))
        assert (waiting.active, waiting.run.status) == (None, "pending")
        assert waiting.run.started_at is None
        following = await store.finish_run(active, SUCCESS, [], [])
        assert following is not None
        assert following.run.status == "running"
        assert following.run.started_at is not None
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"

    async def test_the_next_run_can_be_left_waiting(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        waiting = await store.start_run(ALICE, new_run(thread.thread_id))
        assert await store.finish_run(active, SUCCESS, [], [], claim_next=False) is None
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"
        assert (await store.read_queue()).ready == 1
        claimed = await claim(store, thread.thread_id)
        assert claimed.run.run_id == waiting.run.run_id
        assert claimed.claims == {"user_id": ALICE}
        assert await store.claim_next() is None

    async def test_a_new_run_does_not_overtake_a_waiting_one(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        first = await store.start_run(ALICE, new_run(thread.thread_id))
        await store.finish_run(active, SUCCESS, [], [], claim_next=False)
        second = await store.start_run(ALICE, new_run(thread.thread_id))
        assert second.active is None
        claimed = await claim(store, thread.thread_id)
        assert claimed.run.run_id == first.run.run_id

    async def test_rejecting_leaves_no_trace_on_a_busy_thread(self, store: Store) -> None:
        thread = await make_thread(store)
        await start(store, thread.thread_id)
        with pytest.raises(ThreadBusy):
            await store.start_run(ALICE, new_run(thread.thread_id, on_busy="reject"))
        assert len((await store.list_messages(ALICE, thread.thread_id, limit=9)).data) == 1

    async def test_the_first_run_fixes_the_agent(self, store: Store) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "Hello", "Hi")
        with pytest.raises(WrongAgent):
            await store.start_run(ALICE, new_run(thread.thread_id, agent="other"))
        default = await start(store, thread.thread_id, agent="other", agent_is_default=True)
        assert default.run.agent == "echo"

    async def test_a_default_agent_is_fixed_like_a_chosen_one(self, store: Store) -> None:
        thread = await make_thread(store)
        first = await start(store, thread.thread_id, agent_is_default=True)
        assert first.run.agent == "echo"
        with pytest.raises(WrongAgent):
            await store.start_run(ALICE, new_run(thread.thread_id, agent="other"))

    @pytest.mark.parametrize("taken", ["run_id", "message_id"])
    async def test_a_taken_id_changes_nothing(self, store: Store, taken: str) -> None:
        first, second = await make_thread(store), await make_thread(store)
        active = await start(store, first.thread_id)
        used = {"run_id": active.run.run_id, "message_id": active.message.message_id}
        with pytest.raises(IdTaken):
            await store.start_run(ALICE, new_run(second.thread_id, **{taken: used[taken]}))
        assert (await store.list_messages(ALICE, second.thread_id, limit=9)).data == []
        assert (await store.list_runs(ALICE, second.thread_id, limit=9)).data == []
        assert await store.get_thread(ALICE, second.thread_id) == second

    # Idempotency

    async def test_a_repeated_key_returns_the_first_run(self, store: Store) -> None:
        thread = await make_thread(store)
        first = await store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)
        again = await store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)
        assert again == StartedRun(first.run, first.message, active=None, replayed=True)
        assert first.active is not None
        await store.finish_run(first.active, SUCCESS, [], [])
        later = await store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)
        assert (later.run.run_id, later.run.status) == (first.run.run_id, "success")
        assert len((await store.list_runs(ALICE, thread.thread_id, limit=9)).data) == 1

    async def test_simultaneous_requests_with_one_key_make_one_run(self, store: Store) -> None:
        thread = await make_thread(store)
        started = await asyncio.gather(
            *(store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY) for _ in range(5))
        )
        assert [one.replayed for one in started].count(False) == 1
        assert len({one.run.run_id for one in started}) == 1

    async def test_a_key_of_another_request_is_a_mismatch(self, store: Store) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        await store.start_run(ALICE, new_run(thread.thread_id), idempotency=KEY)
        with pytest.raises(IdempotencyMismatch):
            await store.start_run(
                ALICE, new_run(thread.thread_id), idempotency=replace(KEY, digest="d2")
            )
        with pytest.raises(IdempotencyMismatch):
            await store.start_run(ALICE, new_run(other.thread_id), idempotency=KEY)

    # Leases

    async def test_a_stale_lease_changes_nothing(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        stale = replace(active, lease="0" * 16)
        with pytest.raises(LeaseLost):
            await store.append_events(stale, events(active, 1))
        with pytest.raises(LeaseLost):
            await store.finish_run(stale, FAILURE, [answer(active)], events(active, 1))
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert (run, list(await store.list_events(run.run_id, after=0, limit=9))) == (
            active.run,
            [],
        )
        assert list(await store.run_messages(run.run_id)) == [active.message]

    async def test_a_lease_ends_with_its_run(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.finish_run(active, SUCCESS, [answer(active)], events(active, 1))
        with pytest.raises(LeaseLost):
            await store.append_events(active, events(active, 2))
        with pytest.raises(LeaseLost):
            await store.finish_run(active, FAILURE, [answer(active)], [])
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert run.status == "success"
        assert len(await store.run_messages(run.run_id)) == 2

    async def test_finishing_is_all_or_nothing(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        twice: list[Message] = [answer(active)] * 2
        with pytest.raises(IdTaken):
            await store.finish_run(active, SUCCESS, twice, events(active, 1))
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert run == active.run
        assert list(await store.list_events(run.run_id, after=0, limit=9)) == []
        await store.finish_run(active, SUCCESS, twice[:1], [])

    # After a crash

    async def test_a_run_that_was_running_is_found_with_its_lease(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.append_events(active, events(active, 1, 2))
        await store.start_run(ALICE, new_run(thread.thread_id))
        await store.__aexit__(None, None, None)
        await store.__aenter__()
        (found,) = await store.interrupted_runs()
        assert found == replace(active, last_seq=2)
        assert await store.claim_next() is None
        assert await store.finish_run(found, FAILURE, [], events(active, 3)) is not None

    async def test_nothing_is_claimed_where_nothing_waits(self, store: Store) -> None:
        await make_thread(store)
        assert await store.claim_next() is None
        assert list(await store.interrupted_runs()) == []

    # Reading

    async def test_runs_are_listed_newest_first_page_by_page(self, store: Store) -> None:
        thread = await make_thread(store)
        made = [await store.start_run(ALICE, new_run(thread.thread_id)) for _ in range(5)]
        listed, cursor = [], None
        for expected in (2, 2, 1):
            page = await store.list_runs(ALICE, thread.thread_id, limit=2, cursor=cursor)
            assert len(page.data) == expected
            listed.extend(page.data)
            cursor = page.next_cursor
        assert (listed, cursor) == ([one.run for one in reversed(made)], None)

    async def test_a_run_is_found_on_its_own_thread_only(self, store: Store) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        active = await start(store, thread.thread_id)
        for thread_id, run_id in (
            (other.thread_id, active.run.run_id),
            (thread.thread_id, make_id()),
        ):
            with pytest.raises(NotFound):
                await store.get_run(ALICE, thread_id, run_id)
        with pytest.raises(NotFound):
            await store.list_runs(ALICE, make_id(), limit=1)

    async def test_events_are_read_from_any_place(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.append_events(active, events(active, 1, 2))
        await store.finish_run(active, SUCCESS, [], events(active, 3))
        run_id = active.run.run_id
        assert list(await store.list_events(run_id, after=0, limit=9)) == events(active, 1, 2, 3)
        assert list(await store.list_events(run_id, after=1, limit=1)) == events(active, 2)
        assert list(await store.list_events(run_id, after=3, limit=9)) == []

    async def test_events_that_are_sent_twice_are_stored_once(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.append_events(active, events(active, 1, 2))
        await store.finish_run(active, SUCCESS, [], events(active, 2, 3))
        stored = await store.list_events(active.run.run_id, after=0, limit=9)
        assert list(stored) == events(active, 1, 2, 3)
