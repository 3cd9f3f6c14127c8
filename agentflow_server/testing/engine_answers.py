"""What every Engine has to get right about runs that go on when they are answered."""
# ruff: noqa: S101 - asserting is what a suite is for

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentflow_server.models import Run, Stop
from agentflow_server.testing.engine_data import Gate, OpenReplica, Replica, echo, list_events


class AnswerTests:
    async def test_a_run_goes_on_with_its_answer(self, open_replica: OpenReplica) -> None:
        async with open_replica(echo) as replica:
            run = await replica.ask(await replica.thread(), "Hello")
            await replica.resume(run)
            ended = await replica.ended(run)
            assert (ended.status, ended.attempt) == ("success", 1)
            assert await replica.answers(run) == ["Hello"]

    @pytest.mark.parametrize("limit", ["concurrency", "per_owner"])
    async def test_an_answered_run_waits_for_room_and_goes_before_what_came_later(
        self, open_replica: OpenReplica, limit: str
    ) -> None:
        gate = Gate()
        async with self._asked(open_replica, gate, **{limit: 1}) as (replica, asked, busy):
            resumed = await replica.resume(asked)
            assert (resumed.status, resumed.queue_position) == ("pending", 1)
            assert resumed.started_at == asked.started_at
            later = await replica.start(asked.thread_id, "later")
            assert await replica.statuses([busy, asked, later]) == ["running", "pending", "pending"]
            gate.open(3)
            assert (await replica.ended(later)).status == "success"
            assert await replica.statuses([busy, asked]) == ["success", "success"]
            ended = await replica.look(asked)
            assert (ended.started_at, ended.attempt) == (asked.started_at, 1)
            assert [event.type for event in await list_events(replica, asked.run_id)] == [
                "run.started",
                "interrupt",
                "run.resumed",
                "message.completed",
                "run.completed",
            ]
        assert gate.order == ["busy", "asked", "later"]
        assert gate.most == 1

    @pytest.mark.parametrize("how", ["cancel", "rollback"])
    async def test_an_answered_run_is_stopped_while_it_waits_for_room(
        self, open_replica: OpenReplica, how: Stop
    ) -> None:
        gate = Gate()
        async with self._asked(open_replica, gate, concurrency=1) as (replica, asked, busy):
            await replica.resume(asked)
            later = await replica.start(asked.thread_id, "later")
            await replica.stop(asked, how)
            assert (await replica.look(busy)).status == "running"
            gate.open(2)
            assert (await replica.ended(asked)).status == "cancelled"
            assert (await replica.ended(later)).status == "success"
            events = await list_events(replica, asked.run_id)
            assert [event.seq for event in events] == [1, 2, 3]
            assert events[-1].type == "run.cancelled"
            kept = [message.content for message in await replica.store.run_messages(asked.run_id)]
            assert kept == (["asked"] if how == "cancel" else [])
        assert gate.order == ["busy", "later"]

    async def test_an_answer_that_waits_when_the_engine_is_closed_is_not_lost(
        self, open_replica: OpenReplica
    ) -> None:
        gate = Gate()
        async with self._asked(open_replica, gate, concurrency=1, grace=0.05) as (
            replica,
            asked,
            _,
        ):
            await replica.resume(asked)
        async with open_replica(echo) as replica:
            assert (await replica.ended(asked)).status == "success"
            assert await replica.answers(asked) == ["asked"]

    @asynccontextmanager
    async def _asked(
        self, open_replica: OpenReplica, gate: Gate, **limits: Any
    ) -> AsyncIterator[tuple[Replica, Run, Run]]:
        """A replica, a run of it that has asked, and one that takes all the room there is."""
        async with open_replica(gate, **limits) as replica:
            asked = await replica.ask(await replica.thread(), "asked")
            busy = await replica.start(await replica.thread(), "busy")
            await gate.begun()
            yield replica, asked, busy
