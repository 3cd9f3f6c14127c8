"""Each end of a run reaches its receiver, whatever happens on the way."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from agentflow_server.errors import ConfigError, StoreUnavailable
from agentflow_server.models import Delivery, Interrupt, RunError, RunOutcome
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.webhooks import sender as sending

Listen = Callable[..., Awaitable[Any]]
EndRun = Callable[..., Awaitable[Any]]


async def test_a_receiver_can_verify_what_it_gets(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any, secrets: tuple[str, str]
) -> None:
    receiver = await listen()
    async with send(store) as sender:
        run = await end_run(store, receiver.url("/hook?a=b"), said="Six")
        sender.wake()
        (received,) = await receiver.wait_for(1)
    document = Webhook(secrets[0]).verify(received.body, received.headers)
    assert document["type"] == "run.completed"
    data = document["data"]
    assert (data["run_id"], data["thread_id"]) == (run.run_id, run.thread_id)
    assert (data["agent"], data["status"], data["error"]) == ("echo", "success", None)
    assert [message["content"] for message in data["messages"]] == ["Six"]
    assert (data["interrupts"], data["omitted"]) == ([], [])
    assert received.path == "/hook?a=b"
    with pytest.raises(WebhookVerificationError):
        Webhook(secrets[1]).verify(received.body, received.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secrets[0]).verify(received.body + b" ", received.headers)
    assert list(await store.list_deliveries(limit=9)) == []


async def test_both_secrets_verify_while_one_follows_the_other(
    listen: Listen,
    store: SqliteStore,
    end_run: EndRun,
    send: Any,
    config: Any,
    secrets: tuple[str, str],
) -> None:
    receiver = await listen()
    keys = tuple(SecretStr(secret) for secret in secrets)
    async with send(store, config(keys=keys)) as sender:
        await end_run(store, receiver.url())
        sender.wake()
        (received,) = await receiver.wait_for(1)
    assert len(received.headers["webhook-signature"].split(" ")) == 2
    for secret in secrets:
        assert Webhook(secret).verify(received.body, received.headers)


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (RunOutcome("success"), "run.completed"),
        (RunOutcome("error", RunError(code="agent_failed", detail="No")), "run.failed"),
        (RunOutcome("timeout", RunError(code="run_timeout", detail="No")), "run.failed"),
        (RunOutcome("cancelled"), "run.cancelled"),
        (RunOutcome("cancelled", forget=True), "run.cancelled"),
        (
            RunOutcome("interrupted", interrupts=[Interrupt(interrupt_id="1", value="Why?")]),
            "run.interrupted",
        ),
    ],
)
async def test_each_end_has_its_type(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any, outcome: RunOutcome, kind: str
) -> None:
    receiver = await listen()
    await end_run(store, receiver.url(), outcome)
    async with send(store):
        (received,) = await receiver.wait_for(1)
    document = json.loads(received.body)
    assert document["type"] == kind
    data = document["data"]
    assert data["status"] == outcome.status
    assert data["error"] == (outcome.error and outcome.error.model_dump())
    assert data["interrupts"] == [one.model_dump() for one in outcome.interrupts]
    assert len(data["messages"]) == (0 if outcome.forget else 1)


async def test_nothing_of_the_caller_is_told(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any
) -> None:
    receiver = await listen()
    await end_run(store, receiver.url())
    async with send(store):
        (received,) = await receiver.wait_for(1)
    told = received.body.decode() + str(received.headers)
    for word in ("alice", "email", "secret-tag", "claims", "config", "user_id", "Hello"):
        assert word not in told


@pytest.mark.usefixtures("quick")
async def test_a_receiver_that_fails_is_asked_again_about_the_same(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any, reply: Any, counts: Any
) -> None:
    receiver = await listen(reply.answer(500), reply.answer(404), reply.answer(302))
    await end_run(store, receiver.url())
    async with send(store, count=counts):
        received = await receiver.wait_for(4)
        await counts.wait_for(4)
    assert len({one.headers["webhook-id"] for one in received}) == 1
    assert len({one.body for one in received}) == 1
    assert counts == ["failed", "failed", "failed", "delivered"]


@pytest.mark.usefixtures("quick")
async def test_it_is_given_up_after_so_many_attempts(
    listen: Listen,
    store: SqliteStore,
    end_run: EndRun,
    send: Any,
    config: Any,
    reply: Any,
    counts: Any,
) -> None:
    receiver = await listen(*[reply.answer(500)] * 9)
    await end_run(store, receiver.url())
    async with send(store, config(max_attempts=3), count=counts) as sender:
        await counts.wait_for(3)
        (seen,) = await store.list_deliveries(limit=9)
        assert (len(receiver.received), seen.attempt, seen.failure) == (3, 3, "status 500")
        assert counts == ["failed", "failed", "given_up"]
        receiver.replies.clear()
        await store.retry_delivery(seen.delivery_id)
        sender.wake()
        await receiver.wait_for(4)
        await counts.wait_for(4)
    assert list(await store.list_deliveries(limit=9)) == []


async def test_a_receiver_that_has_gone_is_left_alone(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any, reply: Any, counts: Any
) -> None:
    receiver = await listen(reply.answer(410))
    await end_run(store, receiver.url())
    async with send(store, count=counts):
        await counts.wait_for(1)
    (seen,) = await store.list_deliveries(limit=9)
    assert (seen.due_at, seen.failure, seen.attempt) == (None, "status 410", 1)


async def test_a_receiver_that_asks_for_time_gets_it(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any, reply: Any
) -> None:
    receiver = await listen(reply.answer(503, "Retry-After: 5000"))
    await end_run(store, receiver.url())
    async with send(store):
        await receiver.wait_for(1)
    (seen,) = await store.list_deliveries(limit=9)
    assert seen.due_at is not None
    assert 4990 < (seen.due_at - seen.ended_at).total_seconds() < 6100


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "http://8.8.8.8/", "https://169.254.169.254/", "https://h/"]
)
async def test_what_the_rules_no_longer_allow_is_given_up(
    store: SqliteStore, end_run: EndRun, send: Any, config: Any, url: str, counts: Any
) -> None:
    await end_run(store, url)
    async with send(store, config(allow_private=False), count=counts):
        await counts.wait_for(1)
    (seen,) = await store.list_deliveries(limit=9)
    assert (seen.due_at, seen.attempt) == (None, 1)
    assert seen.failure is not None
    assert seen.failure.startswith("webhook: ")


async def test_a_name_of_our_own_network_is_given_up_at_once(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any, config: Any, counts: Any
) -> None:
    receiver = await listen()

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    courier = sending.Courier(timeout=10.0, allow_private=False, resolve=resolve)
    await end_run(store, receiver.url(host="hooks.example.com", scheme="https"))
    strict = config(allow_private=False)
    async with send(store, strict, count=counts, make_courier=lambda: courier):
        await counts.wait_for(1)
    (seen,) = await store.list_deliveries(limit=9)
    assert (seen.due_at, seen.failure) == (None, "its host is a private address")
    assert not receiver.received


async def test_what_is_too_large_is_left_out_and_named(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any
) -> None:
    receiver = await listen()
    question = [Interrupt(interrupt_id="1", value="w" * 300_000)]
    await end_run(store, receiver.url("/said"), said="x" * 300_000)
    # Short in the database, long in JSON that escapes what it must.
    await end_run(store, receiver.url("/asked"), RunOutcome("interrupted", interrupts=question))
    async with send(store):
        received = {one.path: one.body for one in await receiver.wait_for(2)}
    assert max(map(len, received.values())) < 2000
    said, asked = (json.loads(received[path])["data"] for path in ("/said", "/asked"))
    assert (said["messages"], said["omitted"]) == ([], ["messages"])
    assert (asked["interrupts"], asked["omitted"]) == ([], ["interrupts", "messages"])


async def test_what_was_under_way_when_the_server_stopped_is_sent_by_the_next_one(
    listen: Listen,
    store: SqliteStore,
    end_run: EndRun,
    send: Any,
    reply: Any,
    monkeypatch: pytest.MonkeyPatch,
    counts: Any,
) -> None:
    monkeypatch.setattr(sending, "GRACE_SECONDS", 0.05)
    receiver = await listen(reply.never)
    await end_run(store, receiver.url())
    sender = send(store, count=counts)
    async with sender:
        await receiver.wait_for(1)
    (seen,) = await store.list_deliveries(limit=9)
    assert (seen.failure, seen.attempt) == ("the server has stopped", 1)
    async with sender:
        await counts.wait_for(1)
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1


async def test_what_is_under_way_may_end_when_the_server_stops(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any
) -> None:
    go_on = asyncio.Event()

    async def later(_: Any, writer: Any) -> None:
        await go_on.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    receiver = await listen(later)
    await end_run(store, receiver.url())
    async with send(store):
        await receiver.wait_for(1)
        asyncio.get_running_loop().call_soon(go_on.set)
    assert list(await store.list_deliveries(limit=9)) == []


async def test_a_thread_that_is_deleted_meanwhile_leaves_nothing_to_try_again(
    listen: Listen, store: SqliteStore, end_run: EndRun, send: Any, counts: Any
) -> None:
    go_on = asyncio.Event()

    async def fail_later(_: Any, writer: Any) -> None:
        await go_on.wait()
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    receiver = await listen(fail_later)
    run = await end_run(store, receiver.url())
    async with send(store, count=counts):
        await receiver.wait_for(1)
        await store.hide_thread("alice", run.thread_id)
        await store.purge_thread(run.thread_id)
        go_on.set()
        await counts.wait_for(1)
    assert list(await store.list_deliveries(limit=9)) == []


async def test_one_slow_receiver_does_not_hold_up_the_others(
    listen: Listen,
    store: SqliteStore,
    end_run: EndRun,
    send: Any,
    reply: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "GRACE_SECONDS", 0.05)
    slow, quick = await listen(*[reply.never] * 30), await listen()
    for _ in range(15):
        await end_run(store, slow.url())
    for _ in range(5):
        await end_run(store, quick.url())
    async with send(store):
        await quick.wait_for(5)
    assert slow.most_at_once == sending.PER_HOST


async def test_no_more_than_a_few_are_under_way(
    listen: Listen,
    store: SqliteStore,
    end_run: EndRun,
    send: Any,
    reply: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "GRACE_SECONDS", 0.05)
    receivers = [await listen(*[reply.never] * 4) for _ in range(6)]
    for receiver in receivers * 3:
        await end_run(store, receiver.url())
    async with send(store):
        for n, receiver in enumerate(receivers):
            await receiver.wait_for(2 if n < sending.CONCURRENCY - 6 else 1)
        assert await store.claim_delivery(seconds=0, max_bytes=9) is not None  # there is more
    assert sum(receiver.most_at_once for receiver in receivers) == sending.CONCURRENCY
    assert max(receiver.most_at_once for receiver in receivers) <= sending.PER_HOST


async def test_the_log_says_which_run_and_host_but_not_which_url(
    listen: Listen,
    store: SqliteStore,
    end_run: EndRun,
    send: Any,
    reply: Any,
    caplog: pytest.LogCaptureFixture,
    secrets: tuple[str, str],
    counts: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver = await listen(reply.answer(410))
    await end_run(store, receiver.url("/path-of-it?token=abc"))
    await end_run(store, receiver.url("/path-of-it?token=abc"))
    async with send(store, count=counts):
        await counts.wait_for(2)
    assert f"127.0.0.1:{receiver.port} has it" in caplog.text
    assert f"127.0.0.1:{receiver.port} does not have it (status 410), attempt 1, given up" in (
        caplog.text
    )
    for word in ("path-of-it", "token", secrets[0]):
        assert word not in caplog.text


class Failing(SqliteStore):
    """A database that is away for a moment."""

    failures = 1

    async def claim_delivery(self, **kwargs: Any) -> Delivery | None:  # type: ignore[override]
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("The database cannot be used right now")
        return await super().claim_delivery(**kwargs)


async def test_a_database_that_comes_back_is_asked_again(
    listen: Listen,
    tmp_path: Any,
    end_run: EndRun,
    send: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "RETRY_SECONDS", 0.01)
    receiver = await listen()
    async with Failing(tmp_path / "b.db") as store:
        await end_run(store, receiver.url())
        async with send(store):
            await receiver.wait_for(1)
    assert "webhooks that are due cannot be found" in caplog.text


class Forgetful(SqliteStore):
    async def end_delivery(self, delivery: Delivery) -> None:
        raise StoreUnavailable("The database cannot be used right now")


async def test_what_came_of_it_is_found_out_again_when_it_cannot_be_stored(
    listen: Listen, tmp_path: Any, end_run: EndRun, send: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = await listen()
    async with Forgetful(tmp_path / "b.db") as store:
        await end_run(store, receiver.url())
        async with send(store):
            await receiver.wait_for(1)
        (seen,) = await store.list_deliveries(limit=9)
    assert seen.due_at is not None
    assert "what came of it is unknown" in caplog.text


async def test_a_bug_of_ours_is_no_endless_loop(
    store: SqliteStore,
    end_run: EndRun,
    send: Any,
    config: Any,
    caplog: pytest.LogCaptureFixture,
    counts: Any,
) -> None:
    class Broken(sending.Courier):
        async def post(self, *args: Any) -> Any:
            raise KeyError("a bug")

    await end_run(store, "http://127.0.0.1/")
    courier = Broken(timeout=1.0, allow_private=True)
    once = config(max_attempts=1)
    async with send(store, once, count=counts, make_courier=lambda: courier):
        await counts.wait_for(1)
    (seen,) = await store.list_deliveries(limit=9)
    assert (seen.failure, seen.due_at) == ("it cannot be sent", None)
    assert "a bug" in caplog.text


async def test_without_the_library_the_server_does_not_start(
    store: SqliteStore, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "standardwebhooks", None)
    with pytest.raises(ConfigError, match=r"agentflow-server\[webhooks\]"):
        send(store)


async def test_several_senders_of_one_database_send_each_once(
    listen: Listen, postgres_url: str, end_run: EndRun, send: Any, counts: Any
) -> None:
    receiver = await listen()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(PostgresStore(postgres_url)) for _ in range(3)]
        for store in stores:
            await stack.enter_async_context(send(store, poll=0.02, count=counts))
        for n in range(24):
            await end_run(stores[n % 3], receiver.url())
        received = await receiver.wait_for(24)
        await counts.wait_for(24)
    assert counts == ["delivered"] * 24
    assert len(received) == len({one.headers["webhook-id"] for one in received}) == 24


async def test_what_others_leave_is_found_by_looking(
    listen: Listen, postgres_url: str, end_run: EndRun, send: Any
) -> None:
    receiver = await listen()
    async with (
        PostgresStore(postgres_url) as mine,
        PostgresStore(postgres_url) as other,
        send(mine, poll=0.02),
    ):
        await end_run(other, receiver.url())
        assert len(await receiver.wait_for(1)) == 1
