"""What every WebhookStore has to get right, as tests to inherit."""
# ruff: noqa: S101 - a suite asserts, and is as long as its contract

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentflow_server.errors import LeaseLost
from agentflow_server.interfaces import Store, WebhookStore
from agentflow_server.models import (
    ActiveRun,
    Answer,
    CopyPoint,
    Delivery,
    Event,
    Idempotency,
    RunError,
    RunOutcome,
    Stop,
)
from agentflow_server.testing.store_data import (
    ALICE,
    FAILURE,
    SUCCESS,
    answer,
    asking,
    make_id,
    make_thread,
    new_run,
    resume,
    start,
)

URL = "https://hooks.example.com/runs?token=1"
HOST = "hooks.example.com"
TIMEOUT = RunOutcome("timeout", RunError(code="run_timeout", detail="Too long"))


class DeliveringStore(Store, WebhookStore):
    """A store that keeps runs and what is to be told of them."""


async def claim(store: WebhookStore, **changes: Any) -> Delivery | None:
    values: dict[str, Any] = {"seconds": 60.0, "max_bytes": 100_000}
    return await store.claim_delivery(**values | changes)


async def claim_all(store: WebhookStore) -> list[Delivery]:
    found = []
    while delivery := await claim(store):
        found.append(delivery)
    return found


async def finish(store: Store, active: ActiveRun, outcome: RunOutcome, *said: str) -> None:
    kind = Event(active.run.run_id, active.last_seq + 1, "run.completed", {})
    await store.finish_run(active, outcome, [answer(active, text) for text in said], [kind])


async def leave(store: Store, url: str = URL) -> str:
    """A delivery of a run that has ended; returns the run's thread."""
    thread = await make_thread(store)
    active = await start(store, thread.thread_id, webhook=url)
    await finish(store, active, SUCCESS, "done")
    return thread.thread_id


def said(delivery: Delivery) -> Sequence[Any]:
    assert delivery.messages is not None
    return [message.content for message in delivery.messages]


class LeavingTests:
    """What the end of a run leaves, whatever ends it."""

    async def test_a_run_shows_its_webhook(self, store: DeliveringStore) -> None:
        thread = await make_thread(store)
        started = await store.start_run(ALICE, new_run(thread.thread_id, webhook=URL))
        assert started.active is not None
        assert (started.run.webhook, started.active.run.webhook) == (URL, URL)
        found = await store.get_run(ALICE, thread.thread_id, started.run.run_id)
        assert found.webhook == URL

    async def test_a_run_without_a_webhook_leaves_nothing(self, store: DeliveringStore) -> None:
        thread = await make_thread(store)
        await finish(store, await start(store, thread.thread_id), SUCCESS)
        assert await claim(store) is None
        assert await store.next_delivery() is None
        assert list(await store.list_deliveries(limit=9)) == []

    async def test_a_run_that_goes_on_leaves_nothing(self, store: DeliveringStore) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, webhook=URL)
        await store.append_events(active, [Event(active.run.run_id, 1, "run.started", {})])
        await store.take_over(active)
        assert await claim(store) is None

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, TIMEOUT, RunOutcome("cancelled")])
    async def test_a_run_that_ends_leaves_what_came_of_it(
        self, store: DeliveringStore, outcome: RunOutcome
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "the question", webhook=URL)
        await finish(store, active, outcome, "one", "two")
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        (delivery,) = await claim_all(store)
        assert (delivery.thread_id, delivery.run_id) == (thread.thread_id, active.run.run_id)
        assert (delivery.url, delivery.agent, delivery.attempt) == (URL, "echo", 1)
        assert (delivery.status, delivery.error) == (outcome.status, outcome.error)
        assert delivery.ended_at == run.ended_at
        assert said(delivery) == ["one", "two"]

    async def test_a_worker_without_the_lease_leaves_nothing(self, store: DeliveringStore) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, webhook=URL)
        now = await store.take_over(active)
        with pytest.raises(LeaseLost):
            await finish(store, active, SUCCESS)
        await finish(store, now, SUCCESS)
        with pytest.raises(LeaseLost):
            await finish(store, now, SUCCESS)
        assert len(await claim_all(store)) == 1

    @pytest.mark.parametrize("how", ["cancel", "rollback"])
    async def test_a_run_that_is_stopped_in_line_leaves_its_end(
        self, store: DeliveringStore, how: Stop
    ) -> None:
        thread = await make_thread(store)
        await start(store, thread.thread_id)
        waiting = await store.start_run(ALICE, new_run(thread.thread_id, webhook=URL))
        await store.stop_run(ALICE, thread.thread_id, waiting.run.run_id, how)
        (delivery,) = await claim_all(store)
        assert (delivery.run_id, delivery.status) == (waiting.run.run_id, "cancelled")
        assert said(delivery) == []

    async def test_a_delayed_run_that_is_stopped_leaves_its_end(
        self, store: DeliveringStore
    ) -> None:
        thread = await make_thread(store)
        later = datetime.now(UTC) + timedelta(hours=1)
        new = new_run(thread.thread_id, webhook=URL, start_after=later)
        await store.start_run(ALICE, new)
        await store.stop_run(ALICE, thread.thread_id, new.run_id, "cancel")
        (delivery,) = await claim_all(store)
        assert (delivery.run_id, delivery.status) == (new.run_id, "cancelled")

    @pytest.mark.parametrize("on_busy", ["interrupt", "rollback"])
    async def test_a_message_that_stops_others_lets_each_leave_its_end(
        self, store: DeliveringStore, on_busy: str
    ) -> None:
        thread = await make_thread(store)
        running = await start(store, thread.thread_id, webhook=f"{URL}0")
        for n in (1, 2):
            await store.start_run(ALICE, new_run(thread.thread_id, webhook=f"{URL}{n}"))
        await store.start_run(ALICE, new_run(thread.thread_id, on_busy=on_busy))
        assert {delivery.url for delivery in await claim_all(store)} == {f"{URL}1", f"{URL}2"}
        await finish(store, running, RunOutcome("cancelled"))
        assert [delivery.url for delivery in await claim_all(store)] == [f"{URL}0"]

    async def test_a_running_run_leaves_nothing_before_it_has_really_ended(
        self, store: DeliveringStore
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, webhook=URL)
        await store.stop_run(ALICE, thread.thread_id, active.run.run_id, "rollback")
        assert await claim(store) is None
        await finish(store, active, RunOutcome("cancelled", forget=True))
        (delivery,) = await claim_all(store)
        assert (delivery.status, said(delivery)) == ("cancelled", [])

    async def test_a_run_that_is_resumed_leaves_both_ends_as_they_were(
        self, store: DeliveringStore
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, webhook=URL)
        await finish(store, active, asking("name"), "before")
        run_id = active.run.run_id
        resumed = await resume(store, thread.thread_id, run_id, Answer("Ada"))
        assert resumed.run.webhook == URL
        await finish(store, resumed, SUCCESS, "after")
        first, second = sorted(await claim_all(store), key=lambda one: one.ended_at)
        assert (first.status, second.status) == ("interrupted", "success")
        assert [one.interrupt_id for one in first.interrupts] == ["name"]
        assert (list(second.interrupts), first.delivery_id != second.delivery_id) == ([], True)
        assert (said(first), said(second)) == (["before"], ["before", "after"])

    async def test_a_run_that_is_cancelled_after_its_answer_tells_what_it_had_said(
        self, store: DeliveringStore
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, webhook=URL)
        await finish(store, active, asking("name"), "before")
        run_id = active.run.run_id
        await store.resume_run(ALICE, thread.thread_id, run_id, Answer("Ada"), claim=False)
        await store.stop_run(ALICE, thread.thread_id, run_id, "cancel")
        _, second = sorted(await claim_all(store), key=lambda one: one.ended_at)
        assert (second.status, said(second)) == ("cancelled", ["before"])

    async def test_an_answer_may_name_another_webhook(self, store: DeliveringStore) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await finish(store, active, asking("name"))
        given = Answer("Ada", webhook=URL)
        resumed = await resume(store, thread.thread_id, active.run.run_id, given)
        assert resumed.run.webhook == URL
        await finish(store, resumed, SUCCESS)
        (delivery,) = await claim_all(store)
        assert (delivery.url, delivery.status) == (URL, "success")

    async def test_the_same_message_twice_is_told_once(self, store: DeliveringStore) -> None:
        thread = await make_thread(store)
        key = Idempotency("key", "route", "digest")
        new = new_run(thread.thread_id, webhook=URL)
        started = await store.start_run(ALICE, new, idempotency=key)
        assert started.active is not None
        again = await store.start_run(
            ALICE, new_run(thread.thread_id, webhook=URL), idempotency=key
        )
        assert (again.replayed, again.run.webhook) == (True, URL)
        await finish(store, started.active, SUCCESS)
        assert len(await claim_all(store)) == 1

    async def test_a_copy_tells_nobody(self, store: DeliveringStore) -> None:
        thread_id = await leave(store)
        await claim_all(store)
        begun = await store.begin_copy(ALICE, thread_id, make_id(), metadata={})
        point = CopyPoint(next(iter(begun.runs.values())), "question")
        copy = await store.finish_copy(ALICE, begun, point=point)
        (run,) = (await store.list_runs(ALICE, copy.thread_id, limit=9)).data
        assert (run.status, run.webhook) == ("cancelled", None)
        assert await claim(store) is None

    async def test_a_deleted_thread_takes_its_deliveries_with_it(
        self, store: DeliveringStore
    ) -> None:
        thread_id = await leave(store)
        other = await leave(store)
        await store.hide_thread(ALICE, thread_id)
        assert [delivery.thread_id for delivery in await claim_all(store)] == [other]
        await store.purge_thread(thread_id)
        assert len(await store.list_deliveries(limit=9)) == 1


class DeliveringTests:
    """Each delivery is with one sender at a time, until it has arrived."""

    async def test_of_many_who_claim_each_gets_another_one(self, store: DeliveringStore) -> None:
        for _ in range(3):
            await leave(store)
        claimed = await asyncio.gather(*(claim(store) for _ in range(6)))
        found = [delivery.delivery_id for delivery in claimed if delivery is not None]
        # Of several at the same moment one may find all others taken; he looks again.
        found += [delivery.delivery_id for delivery in await claim_all(store)]
        assert len(found) == len(set(found)) == 3

    async def test_one_that_has_arrived_is_forgotten(self, store: DeliveringStore) -> None:
        await leave(store)
        (delivery,) = await claim_all(store)
        await store.end_delivery(delivery)
        assert list(await store.list_deliveries(limit=9)) == []
        assert await store.next_delivery() is None

    async def test_one_whose_sender_died_is_due_again(self, store: DeliveringStore) -> None:
        await leave(store)
        lost = await claim(store, seconds=0)
        again = await claim(store)
        assert lost is not None
        assert again is not None
        assert (lost.delivery_id, lost.attempt + 1) == (again.delivery_id, again.attempt)

    async def test_a_sender_whose_lease_is_over_changes_nothing(
        self, store: DeliveringStore
    ) -> None:
        await leave(store)
        late = await claim(store, seconds=0)
        now = await claim(store)
        assert late is not None
        assert now is not None
        await store.end_delivery(late)
        await store.postpone_delivery(late, "status 500", seconds=None)
        (seen,) = await store.list_deliveries(limit=9)
        assert (seen.failure, seen.due_at is None) == (None, False)
        await store.end_delivery(now)
        assert list(await store.list_deliveries(limit=9)) == []

    async def test_one_that_is_postponed_comes_back_at_its_time(
        self, store: DeliveringStore
    ) -> None:
        await leave(store)
        (delivery,) = await claim_all(store)
        await store.postpone_delivery(delivery, "status 500", seconds=100)
        assert await claim(store) is None
        wait = await store.next_delivery()
        assert wait is not None
        assert 90 < wait <= 100
        (seen,) = await store.list_deliveries(limit=9)
        assert (seen.attempt, seen.failure, seen.host) == (1, "status 500", HOST)
        assert seen.run_id == delivery.run_id

    async def test_one_that_is_due_at_once_can_be_claimed(self, store: DeliveringStore) -> None:
        await leave(store)
        (delivery,) = await claim_all(store)
        await store.postpone_delivery(delivery, "the server has stopped", seconds=0)
        again = await claim(store)
        assert again is not None
        assert again == Delivery(
            **{name: getattr(delivery, name) for name in Delivery.__slots__}
            | {"attempt": 2, "lease": again.lease}
        )

    async def test_one_that_was_given_up_waits_for_an_operator(
        self, store: DeliveringStore
    ) -> None:
        await leave(store)
        (delivery,) = await claim_all(store)
        assert not await store.retry_delivery(delivery.delivery_id)  # somebody is at it
        await store.postpone_delivery(delivery, "status 410", seconds=None)
        assert await claim(store) is None
        assert await store.next_delivery() is None
        (seen,) = await store.list_deliveries(limit=9)
        assert (seen.due_at, seen.failure) == (None, "status 410")
        assert await store.retry_delivery(delivery.delivery_id)
        again = await claim(store)
        assert again is not None
        assert (again.delivery_id, again.attempt) == (delivery.delivery_id, 1)
        assert not await store.retry_delivery(make_id())

    async def test_only_what_was_given_up_is_pruned(self, store: DeliveringStore) -> None:
        for _ in range(2):
            await leave(store)
        (given_up, other) = await claim_all(store)
        await store.postpone_delivery(given_up, "status 410", seconds=None)
        assert await store.prune_deliveries(given_up.ended_at) == 0
        assert await store.prune_deliveries(datetime.now(UTC) + timedelta(hours=1)) == 1
        (seen,) = await store.list_deliveries(limit=9)
        assert seen.delivery_id == other.delivery_id

    async def test_the_newest_are_listed_first(self, store: DeliveringStore) -> None:
        threads = [await leave(store) for _ in range(3)]
        listed = await store.list_deliveries(limit=2)
        assert [seen.thread_id for seen in listed] == [threads[2], threads[1]]

    async def test_the_one_that_waits_longest_is_first(self, store: DeliveringStore) -> None:
        threads = [await leave(store) for _ in range(3)]
        assert [delivery.thread_id for delivery in await claim_all(store)] == threads

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            (URL, HOST),
            ("http://10.0.0.1/", "10.0.0.1"),
            ("https://[2606:4700::1]:8443/a//b", "[2606:4700::1]:8443"),
            ("https://hooks.example.com:444/", "hooks.example.com:444"),
        ],
    )
    async def test_hosts_that_are_busy_are_left_out(
        self, store: DeliveringStore, url: str, host: str
    ) -> None:
        await leave(store, url)
        assert await claim(store, skip=["other.example.com", host]) is None
        assert await store.next_delivery(skip=[host]) is None
        wait = await store.next_delivery(skip=["other.example.com"])
        assert wait is not None
        assert wait <= 0
        delivery = await claim(store, skip=["other.example.com"])
        assert delivery is not None
        assert delivery.url == url

    async def test_too_much_to_send_is_not_even_read(self, store: DeliveringStore) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "q" * 5000, webhook=URL)
        await finish(store, active, SUCCESS, "é" * 600)
        small = await claim(store, max_bytes=1000, seconds=0)
        assert small is not None
        assert small.messages is None
        large = await claim(store, max_bytes=2000)
        assert large is not None
        assert said(large) == ["é" * 600]


class WebhookStoreSuite(LeavingTests, DeliveringTests):
    """Subclass it, give it your store, opened and empty; it is a Store as well."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def store(self) -> DeliveringStore:
        raise NotImplementedError("override this fixture")
