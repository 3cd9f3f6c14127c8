"""The database does what it is asked, and the answer is lost on the way."""

import pytest

from agentflow_server.errors import StoreUnavailable
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.testing.engine_data import Gate
from agentflow_server.testing.store_data import asking, events


class Forgetful(PostgresStore):
    """Loses the next answer to a call of this name, after the commit; or the call itself."""

    lost: str | None = None
    refused = 0

    async def finish_run(self, *args, **kwargs):
        return self._lose("finish_run", await super().finish_run(*args, **kwargs))

    async def claim_next(self, *args, **kwargs):
        claimed = await super().claim_next(*args, **kwargs)
        return claimed if claimed is None else self._lose("claim_next", claimed)

    async def append_events(self, *args, **kwargs):
        if self.refused:
            self.refused -= 1
            raise StoreUnavailable("The connection is gone")
        await super().append_events(*args, **kwargs)

    def _lose(self, name, answer):
        if self.lost != name:
            return answer
        self.lost = None
        raise StoreUnavailable("The connection is gone")


async def test_what_the_end_of_a_run_has_claimed_is_executed(open_distributed):
    gate = Gate()
    async with open_distributed(gate, lease=600.0, make_store=Forgetful) as replica:
        thread = await replica.thread()
        first = await replica.start(thread, "first")
        await gate.begun()
        others = [await replica.start(thread, text) for text in ("second", "third")]
        replica.store.lost = "finish_run"
        gate.open(3)
        assert (await replica.ended(others[-1])).status == "success"
        assert await replica.statuses([first, *others]) == ["success"] * 3
    assert gate.order == ["first", "second", "third"]
    assert replica.store.lost is None


async def test_what_was_claimed_in_line_is_executed(open_distributed):
    gate = Gate()
    async with open_distributed(gate, concurrency=1, lease=600.0, make_store=Forgetful) as replica:
        first = await replica.start(await replica.thread(), "first")
        await gate.begun()
        second = await replica.start(await replica.thread(), "second")
        replica.store.lost = "claim_next"
        gate.open(2)
        assert (await replica.ended(second)).status == "success"
        assert (await replica.look(first)).status == "success"
    assert replica.store.lost is None


@pytest.mark.parametrize("times", [1, 4])
async def test_an_agent_outlives_a_database_that_is_away_for_a_moment(open_distributed, times):
    async def talking(messages, config):
        for number in range(40):
            yield f"{number} "

    async with open_distributed(talking, make_store=Forgetful) as replica:
        replica.store.refused = times
        run = await replica.ended(await replica.start(await replica.thread()))
        assert run.status == "success"
        events = await replica.store.list_events(run.run_id, after=0, limit=100)
        assert [event.seq for event in events] == list(range(1, 44))


@pytest.mark.parametrize("how", ["cancel", "rollback"])
async def test_nothing_is_begun_of_an_answer_that_was_stopped_before_a_worker_came(
    open_distributed, how
):
    begun = []

    async def noting(messages, config):
        begun.append(messages[-1]["content"])
        return "done"

    async with open_distributed(noting, concurrency=0, lease=600.0) as api:
        active = await api.claim_and_die(await api.thread(), "asked")
        await api.store.finish_run(active, asking("q1"), [], events(active, 1))
        await api.resume(active.run)
        await api.stop(active.run, how)
        # Only who has the agent can let it forget.
        assert (await api.look(active.run)).status == {
            "cancel": "cancelled",
            "rollback": "pending",
        }[how]
        async with open_distributed(noting, lease=600.0) as worker:
            assert (await worker.ended(active.run)).status == "cancelled"
        kept = [message.content for message in await api.store.run_messages(active.run.run_id)]
        assert kept == (["asked"] if how == "cancel" else [])
    assert begun == []


async def test_a_worker_is_told_of_a_run_that_is_answered_where_none_is(open_distributed):
    async def echo(messages, config):
        return messages[-1]["content"]

    async with open_distributed(echo, concurrency=0) as api, open_distributed(echo, poll=600.0):
        active = await api.claim_and_die(await api.thread(), "asked")
        await api.store.finish_run(active, asking("q1"), [], events(active, 1))
        await api.resume(active.run)
        assert (await api.ended(active.run)).status == "success"
