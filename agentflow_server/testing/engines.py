"""What every Engine has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentflow_server.models import JsonObject
from agentflow_server.testing.engine_answers import AnswerTests
from agentflow_server.testing.engine_data import PATIENCE, Gate, OpenReplica, echo, list_events
from agentflow_server.testing.store_data import BOB


async def fail(messages: list[JsonObject], config: JsonObject) -> Any:
    raise RuntimeError("as it was asked to")


class EngineSuite(AnswerTests):
    """Subclass it, give it your engine with a store, a bus and a worker, and run pytest:

    class TestMyEngine(EngineSuite):
        @pytest.fixture
        def open_replica(self, tmp_path):
            @asynccontextmanager
            async def opened(function, *, grace=30, concurrency=None, per_owner=None, retry=False):
                ...
                yield Replica(store, bus, engine)
            return opened
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def open_replica(self) -> OpenReplica:
        raise NotImplementedError("override this fixture")

    # One run after the other

    async def test_a_run_is_executed_to_its_end(self, open_replica: OpenReplica) -> None:
        async with open_replica(echo) as replica:
            run = await replica.start(await replica.thread(), "Hello")
            assert (await replica.ended(run)).status == "success"
            assert await replica.answers(run) == ["Hello"]

    async def test_the_runs_of_a_thread_are_executed_in_order_and_never_two_at_once(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate) as replica:
            thread_id = await replica.thread()
            runs = [await replica.start(thread_id, text) for text in "abcdef"]
            await gate.begun()
            assert await replica.statuses(runs) == ["running", *["pending"] * 5]
            gate.open(len(runs))
            for run in runs:
                assert (await replica.ended(run)).status == "success"
        assert (gate.order, gate.most, gate.collisions) == (list("abcdef"), 1, 0)

    async def test_threads_do_not_wait_for_each_other(self, open_replica: OpenReplica) -> None:
        gate = Gate()
        async with open_replica(gate) as replica:
            runs = [await replica.start(await replica.thread(), text) for text in "abc"]
            await gate.begun(3)
            gate.open(3)
            for run in runs:
                await replica.ended(run)
        assert gate.most == 3

    async def test_what_follows_a_failed_run_is_executed(self, open_replica: OpenReplica) -> None:
        async with open_replica(fail) as replica:
            thread_id = await replica.thread()
            runs = [await replica.start(thread_id) for _ in range(3)]
            for run in runs:
                assert (await replica.ended(run)).status == "error"

    async def test_a_run_that_waits_for_nobody_in_particular_is_taken_up(
        self, open_replica: OpenReplica
    ) -> None:
        """Whoever accepted it had no room for it."""
        async with open_replica(echo, concurrency=1) as replica:
            thread_id = await replica.thread()
            assert replica.engine.reserve()
            run = await replica.start(thread_id)
            assert (await replica.look(run)).status == "pending"
            replica.engine.release()
            replica.engine.note_waiting()
            assert (await replica.ended(run)).status == "success"

    # Limits

    async def test_no_more_runs_are_executed_at_a_time_than_allowed_and_all_in_the_end(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate, concurrency=2) as replica:
            runs = [await replica.start(await replica.thread(), text) for text in "abcde"]
            assert await replica.statuses(runs) == ["running"] * 2 + ["pending"] * 3
            gate.open(len(runs))
            for run in runs:
                await replica.ended(run)
        assert (gate.most, sorted(gate.order)) == (2, list("abcde"))

    async def test_a_reserved_place_is_nobody_elses(self, open_replica: OpenReplica) -> None:
        async with open_replica(echo, concurrency=2) as replica:
            assert [replica.engine.reserve() for _ in range(2)] == [True, True]
            replica.engine.release()
            assert [replica.engine.reserve() for _ in range(2)] == [True, False]

    async def test_a_place_that_gets_free_is_for_those_in_line(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo, concurrency=1) as replica:
            assert [replica.engine.reserve() for _ in range(2)] == [True, False]
            replica.engine.release()
            assert not replica.engine.reserve()
            # Nobody is there: whoever is looking for one finds that out.
            async with asyncio.timeout(PATIENCE):
                while not replica.engine.reserve():  # noqa: ASYNC110 – it tells nobody
                    await asyncio.sleep(0.01)

    async def test_one_owner_cannot_take_the_place_of_another(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate, per_owner=1) as replica:
            first, second = [await replica.start(await replica.thread(), text) for text in "ab"]
            other = await replica.start(await replica.thread(BOB), "c", BOB)
            assert await replica.statuses([first, second]) == ["running", "pending"]
            assert (await replica.look(other, BOB)).status == "running"
            gate.open(3)
            await replica.ended(second)
            await replica.ended(other, BOB)
        assert gate.order == ["a", "c", "b"]

    # Stopping

    async def test_a_run_that_is_stopped_ends_and_the_next_one_begins(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate) as replica:
            thread_id = await replica.thread()
            runs = [await replica.start(thread_id, text) for text in "ab"]
            await gate.begun()
            await replica.stop(runs[0])
            assert (await replica.ended(runs[0])).status == "cancelled"
            await gate.begun(2)
            gate.open()
            assert (await replica.ended(runs[1])).status == "success"

    async def test_a_run_that_is_rolled_back_leaves_no_message(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate) as replica:
            run = await replica.start(await replica.thread())
            await gate.begun()
            await replica.stop(run, "rollback")
            assert (await replica.ended(run)).status == "cancelled"
            assert list(await replica.store.run_messages(run.run_id)) == []

    async def test_stopping_what_nobody_executes_does_nothing(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo) as replica:
            run = await replica.start(await replica.thread())
            await replica.ended(run)
            replica.engine.stop(run.run_id, "cancel")
            replica.engine.stop("no such run", "rollback")
            assert (await replica.look(run)).status == "success"

    # Delays

    async def test_a_delayed_run_is_executed_when_its_time_has_come(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo) as replica:
            soon = datetime.now(UTC) + timedelta(seconds=0.3)
            run = await replica.start(await replica.thread(), start_after=soon)
            assert (await replica.look(run)).status == "pending"
            ended = await replica.ended(run)
            assert ended.status == "success"
            assert ended.started_at is not None
            assert ended.started_at >= soon

    async def test_a_delayed_run_goes_before_one_whose_time_comes_later(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo) as replica:
            now = datetime.now(UTC)
            late = await replica.start(await replica.thread(), start_after=now + timedelta(hours=1))
            soon = await replica.start(
                await replica.thread(), start_after=now + timedelta(seconds=0.1)
            )
            await replica.ended(soon)
            assert (await replica.look(late)).status == "pending"

    async def test_a_delayed_run_whose_time_came_while_nobody_was_there_is_executed(
        self, open_replica: OpenReplica
    ) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=0.1)
        async with open_replica(echo) as replica:
            run = await replica.start(await replica.thread(), start_after=soon)
        async with open_replica(echo) as replica:
            assert (await replica.ended(run)).status == "success"

    # The end of a process

    async def test_a_running_run_may_finish_before_the_engine_is_closed(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate) as replica:
            run = await replica.start(await replica.thread())
            await gate.begun()
            asyncio.get_running_loop().call_later(0.2, gate.open)
        async with open_replica(echo) as replica:
            assert (await replica.look(run)).status == "success"
            assert await replica.answers(run) == ["done with Hello"]

    async def test_a_run_that_takes_longer_than_the_grace_period_ends_as_an_error(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate, grace=0.05) as replica:
            run = await replica.start(await replica.thread())
            await gate.begun()
        async with open_replica(echo) as replica:
            ended = await replica.look(run)
            assert ended.status == "error"
            assert ended.error is not None
            assert ended.error.code == "server_stopped"

    async def test_what_waits_when_the_engine_is_closed_is_executed_by_the_next_one(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with open_replica(gate, grace=0.05) as replica:
            thread_id = await replica.thread()
            runs = [await replica.start(thread_id, text) for text in "abc"]
            await gate.begun()
        assert gate.order == ["a"]
        async with open_replica(echo) as replica:
            for run in runs[1:]:
                assert (await replica.ended(run)).status == "success"
            assert (await replica.look(runs[0])).status == "error"

    async def test_an_agent_that_does_not_stop_is_left_alone_and_its_run_has_ended(
        self, open_replica: OpenReplica
    ) -> None:
        begun, let_go = asyncio.Event(), asyncio.Event()

        async def stubborn(messages: list[JsonObject], config: JsonObject) -> str:
            begun.set()
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue
            return "at last"

        async with open_replica(stubborn, grace=0.05) as replica:
            run = await replica.start(await replica.thread())
            async with asyncio.timeout(PATIENCE):
                await begun.wait()
        let_go.set()
        async with open_replica(echo) as replica:
            assert (await replica.look(run)).status == "error"

    # The death of a process

    async def test_a_run_whose_process_died_ends_as_an_error_and_the_next_one_is_executed(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo) as replica:
            thread_id = await replica.thread()
            dead = await replica.claim_and_die(thread_id)
            waiting = await replica.start(thread_id, "next")
        async with open_replica(echo) as replica:
            assert (await replica.ended(waiting)).status == "success"
            ended = await replica.look(dead.run)
            assert ended.status == "error"
            assert ended.error is not None
            assert ended.error.code == "server_restarted"
            assert [event.type for event in await list_events(replica, dead.run.run_id)] == [
                "run.started",
                "run.failed",
            ]

    async def test_a_run_whose_process_died_is_tried_again_where_that_is_wanted(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo, retry=True) as replica:
            dead = await replica.claim_and_die(await replica.thread(), "Hello")
        async with open_replica(echo, retry=True) as replica:
            ended = await replica.ended(dead.run)
            assert (ended.status, ended.attempt) == ("success", 2)
            assert await replica.answers(dead.run) == ["Hello"]

    async def test_no_more_runs_of_a_dead_process_are_executed_at_a_time_than_allowed(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo, retry=True) as replica:
            dead = [await replica.claim_and_die(await replica.thread(), text) for text in "abc"]
            later = await replica.start(dead[0].run.thread_id, "later")
        gate = Gate()
        async with open_replica(gate, retry=True, concurrency=1) as replica:
            gate.open(4)
            for run in (*(active.run for active in dead), later):
                assert (await replica.ended(run)).status == "success"
            attempts = [(await replica.look(active.run)).attempt for active in dead]
            assert attempts == [2, 2, 2]
        assert (gate.most, sorted(gate.order)) == (1, ["a", "b", "c", "later"])
        assert gate.order.index("a") < gate.order.index("later")

    async def test_a_run_that_was_to_be_stopped_when_its_process_died_is_stopped(
        self, open_replica: OpenReplica
    ) -> None:
        async with open_replica(echo, retry=True) as replica:
            dead = await replica.claim_and_die(await replica.thread())
            await replica.stop(dead.run)
        async with open_replica(echo, retry=True) as replica:
            assert (await replica.ended(dead.run)).status == "cancelled"
