"""Two servers without turns of their own and a worker, over real HTTP: any of them answers for all."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.distributed import talking
from tests.distributed.gate import Gate
from tests.distributed.site import DEADLINE, Process, Replica, Site, make_token


@dataclass
class Fleet:
    site: Site
    one: Replica
    other: Replica
    worker: Process


@pytest.fixture(scope="module")
async def gate():
    """For all tests here, as the processes are."""
    async with Gate() as gate:
        yield gate


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, postgres_server, gate):
    with postgres_server.new_database() as url:
        site = Site(tmp_path_factory.mktemp("fleet"), url)
        site.set(GATE=gate.port)
        try:
            starting = [site.begin_to_serve("--no-worker") for _ in range(2)]
            worker = site.work()
            one, other = (replica.answer() for replica in starting)
            yield Fleet(site, one, other, worker)
            assert [each.stop() for each in (one, other, worker)] == [0, 0, 0]
            site.check_logs()
        finally:
            site.close()


@pytest.fixture
async def one(fleet):
    async with fleet.one.client() as http:
        yield http


@pytest.fixture
async def other(fleet):
    async with fleet.other.client() as http:
        yield http


async def test_the_worker_executes_what_a_server_accepts(fleet, one, other):
    thread_id = await talking.new_thread(one)
    turn = await talking.send(one, thread_id, "who are you")
    assert turn["message"]["content"] == str(fleet.worker.pid)
    await talking.send(other, thread_id, "hello")
    turn = await talking.send(one, thread_id, "history please")
    assert turn["message"]["content"] == f"who are you | {fleet.worker.pid} | hello | echo hello"


async def test_a_stream_comes_back_from_the_worker_while_it_lasts(gate, one):
    thread_id = await talking.new_thread(one)
    async with talking.streaming(one, thread_id, "wait for me") as events:
        first = [await anext(events), await anext(events)]
        assert [kind for _, kind, _ in first] == ["run.started", "message.delta"]
        (await gate.wait()).let_go()
        rest = [event async for event in events]
    talking.check_numbers(first + rest)
    assert talking.text_of(first + rest) == "begun ended"
    assert rest[-1][1] == "run.completed"


async def test_a_stream_goes_on_at_another_server_without_gap_or_repeat(gate, one, other):
    """While the run lasts: event by event, now here, now there."""
    thread_id = await talking.new_thread(one)
    run_id = await talking.start(one, thread_id, "wait a moment")
    held = await gate.wait()
    seen = []
    for http in (one, other):
        async with talking.following(http, thread_id, run_id, len(seen)) as events:
            seen.append(await anext(events))
    assert [(number, kind) for number, kind, _ in seen] == [
        (1, "run.started"),
        (2, "message.delta"),
    ]
    reading = [
        asyncio.create_task(talking.read_events(http, thread_id, run_id, after))
        for http in (one, other)
        for after in (0, 1, 2)
    ]
    held.let_go()
    logs = await asyncio.gather(*reading)
    for after, log in zip((0, 1, 2) * 2, logs, strict=True):
        talking.check_numbers(log, after=after)
        assert [*seen[:after], *log] == logs[0]


async def test_a_stream_goes_on_at_another_server_after_the_end_of_the_run(one, other):
    thread_id = await talking.new_thread(one)
    run_id = await talking.start(one, thread_id, "count 300")
    whole = await talking.read_events(one, thread_id, run_id)
    talking.check_numbers(whole)
    assert talking.text_of(whole) == "".join(f"{n} " for n in range(300))
    for after in (0, 1, 150, len(whole) - 1):
        assert await talking.read_events(other, thread_id, run_id, after) == whole[after:]
    assert await talking.read_events(other, thread_id, run_id, len(whole)) == []


async def test_two_who_take_turns_reading_at_two_servers_see_each_event_once(one, other):
    """The reader leaves after a few events and goes on elsewhere, while they are being made."""
    thread_id = await talking.new_thread(one)
    run_id = await talking.start(one, thread_id, "count 400")
    seen: list[talking.Event] = []
    turn = 0
    while not seen or seen[-1][1] != "run.completed":
        http = (one, other)[turn % 2]
        turn += 1
        async with talking.following(http, thread_id, run_id, len(seen)) as events:
            async for event in events:
                seen.append(event)
                if len(seen) % 37 == 0:
                    break
    talking.check_numbers(seen)
    assert talking.text_of(seen) == "".join(f"{n} " for n in range(400))


@pytest.mark.parametrize("action", ["cancel", "rollback"])
async def test_a_run_is_cancelled_through_another_server(gate, one, other, action):
    thread_id = await talking.new_thread(one)
    run_id = await talking.start(one, thread_id, f"wait and {action}")
    await gate.wait()
    following = asyncio.create_task(talking.read_events(one, thread_id, run_id))
    url = f"/threads/{thread_id}/runs/{run_id}/cancel"
    answer = await other.post(url, json={"action": action})
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert (await following)[-1][1] == "run.cancelled"
    kept = {"cancel": ["wait and cancel", "begun "], "rollback": []}[action]
    assert await talking.history(one, thread_id) == kept
    assert (await talking.send(one, thread_id, "again"))["message"]["content"] == "echo again"


async def test_a_run_that_waits_is_cancelled_and_the_next_one_goes_on(gate, one, other):
    thread_id = await talking.new_thread(one)
    runs = [await talking.start(one, thread_id, text) for text in ("wait here", "two", "three")]
    held = await gate.wait()
    answer = await other.post(f"/threads/{thread_id}/runs/{runs[1]}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    held.let_go()
    assert (await talking.ended(other, thread_id, runs[2]))["status"] == "success"
    assert await talking.history(one, thread_id) == [
        "wait here",
        "begun ended",
        "two",
        "three",
        "echo three",
    ]


async def test_a_message_stops_what_another_server_started(gate, one, other):
    thread_id = await talking.new_thread(one)
    run_id = await talking.start(one, thread_id, "wait in vain")
    await gate.wait()
    turn = await talking.send(other, thread_id, "no, this", on_busy="interrupt")
    assert turn["message"]["content"] == "echo no, this"
    assert (await talking.get_run(one, thread_id, run_id))["status"] == "cancelled"


async def test_a_client_that_leaves_stops_its_run_at_the_worker(gate, one, other):
    thread_id = await talking.new_thread(one)
    async with talking.streaming(one, thread_id, "wait", on_disconnect="cancel") as events:
        run_id = (await anext(events))[2]["run_id"]
        await gate.wait()
    assert (await talking.ended(other, thread_id, run_id))["status"] == "cancelled"


async def test_a_run_that_asks_is_answered_at_another_server(one, other):
    thread_id = await talking.new_thread(one)
    asked = await talking.send(one, thread_id, "ask me")
    assert asked["status"] == "interrupted"
    waiting = (await other.get("/interrupts")).json()["data"]
    assert asked["run_id"] in {each["run_id"] for each in waiting}
    answer = await other.post(
        f"/threads/{thread_id}/runs/{asked['run_id']}/resume", json={"value": 42}
    )
    assert answer.json()["message"]["content"] == "told 42"
    talking.check_numbers(await talking.read_events(one, thread_id, asked["run_id"]))


async def test_of_two_answers_at_two_servers_one_counts(fleet, one, other):
    """Ten questions, each answered ten times at once."""
    threads = [await talking.new_thread(one) for _ in range(10)]
    turns = await asyncio.gather(*(talking.send(one, thread, "ask me") for thread in threads))

    async def answer(turn: Any) -> None:
        url = f"/threads/{turn['thread_id']}/runs/{turn['run_id']}/resume"
        sent = [(one, other)[n % 2].post(url, json={"value": n}) for n in range(10)]
        answers = await asyncio.gather(*sent)
        (won,) = [n for n, each in enumerate(answers) if each.status_code == 200]
        lost = [each.json()["code"] for n, each in enumerate(answers) if n != won]
        assert lost == ["not_interrupted"] * 9
        assert await talking.history(other, turn["thread_id"]) == ["ask me", f"told {won}"]

    await asyncio.gather(*(answer(turn) for turn in turns))


async def test_a_key_sent_to_two_servers_at_once_makes_one_run(one, other):
    thread_id = await talking.new_thread(one)
    for number in range(5):
        body = {"content": f"message {number}", "background": True}
        headers = {"Idempotency-Key": f"key-{number}"}
        url = f"/threads/{thread_id}/messages"
        sent = [(one, other)[n % 2].post(url, json=body, headers=headers) for n in range(10)]
        answers = await asyncio.gather(*sent)
        assert {each.status_code for each in answers} == {202}
        (run_id,) = {each.json()["run_id"] for each in answers}
        await talking.ended(other, thread_id, run_id)
    expected = [text for n in range(5) for text in (f"message {n}", f"echo message {n}")]
    assert await talking.history(one, thread_id) == expected


async def test_a_key_sent_to_two_servers_at_once_makes_one_thread(one, other):
    sent = [
        (one, other)[n % 2].post("/threads", json={}, headers={"Idempotency-Key": "a-thread"})
        for n in range(10)
    ]
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers]
    assert len({answer.json()["thread_id"] for answer in answers}) == 1


async def test_messages_to_two_servers_are_executed_in_order_one_after_the_other(one, other):
    thread_id = await talking.new_thread(one)
    runs = [
        await talking.start((one, other)[number % 2], thread_id, f"message {number}")
        for number in range(20)
    ]
    await talking.ended(one, thread_id, runs[-1])
    expected = [text for n in range(20) for text in (f"message {n}", f"echo message {n}")]
    assert await talking.history(other, thread_id) == expected


async def test_a_delayed_run_is_begun_although_its_server_executes_nothing(one, other):
    thread_id = await talking.new_thread(one)
    run_id = await talking.start(one, thread_id, "later", after_seconds=0.3)
    await talking.send(other, thread_id, "sooner")
    assert (await talking.ended(other, thread_id, run_id))["status"] == "success"
    assert await talking.history(one, thread_id) == [
        "sooner",
        "echo sooner",
        "later",
        "echo later",
    ]


# WebSockets and tickets


def address(replica: Replica, thread_id: str) -> str:
    return f"{replica.url.replace('http', 'ws', 1)}/threads/{thread_id}/ws"


async def hear(socket: Any) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), DEADLINE))
    return frame


async def test_a_websocket_tells_what_the_worker_does(fleet, gate, one):
    thread_id = await talking.new_thread(one)
    bearer = {"Authorization": f"Bearer {make_token('alice')}"}
    async with AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(
                connect(address(replica, thread_id), additional_headers=bearer)
            )
            for replica in (fleet.one, fleet.other)
        ]
        for socket in sockets:
            assert (await hear(socket))["type"] == "ready"
        await sockets[0].send(json.dumps({"type": "message", "content": "wait for it"}))
        run_id = (await hear(sockets[0]))["run"]["run_id"]
        await gate.wait()
        await sockets[1].send(json.dumps({"type": "cancel", "run_id": run_id}))
        frames = []
        while not frames or frames[-1].get("event") != "run.cancelled":
            frames.append(await hear(sockets[0]))
    events = [frame for frame in frames if frame["type"] == "event"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (await talking.get_run(one, thread_id, run_id))["status"] == "cancelled"


async def test_a_ticket_of_one_server_opens_one_websocket_at_another(fleet, one):
    thread_id = await talking.new_thread(one)
    for _ in range(3):
        ticket = (await one.post("/tickets")).json()["ticket"]

        async def enter(replica: Replica, ticket: str = ticket) -> int:
            names = ["agentflow.v1", f"ticket.{ticket}"]
            try:
                async with connect(address(replica, thread_id), subprotocols=names) as socket:
                    assert (await hear(socket))["type"] == "ready"
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        tried = [enter((fleet.other, fleet.one)[n % 2]) for n in range(6)]
        assert sorted(await asyncio.gather(*tried)) == [101, 401, 401, 401, 401, 401]


# Credentials


async def test_what_operators_do_to_api_keys_counts_at_every_server(fleet):
    def with_key(replica: Replica) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=replica.url, headers={"X-API-Key": key}, timeout=DEADLINE
        )

    key = await asyncio.to_thread(fleet.site.command, "api-keys", "create", "--user-id", "bob")
    key = next(word for word in key.split() if word.startswith("afk_"))
    async with with_key(fleet.one) as one, with_key(fleet.other) as other:
        thread_id = await talking.new_thread(one)
        assert (await other.get(f"/threads/{thread_id}")).status_code == 200
        await asyncio.to_thread(fleet.site.command, "api-keys", "revoke", key)
        assert (await one.get("/threads")).status_code == 401
        assert (await other.get("/threads")).status_code == 401


async def test_a_stranger_finds_nothing_at_any_server(fleet, one):
    thread_id = await talking.new_thread(one)
    for replica in (fleet.one, fleet.other):
        async with replica.client("mallory") as http:
            assert (await http.get(f"/threads/{thread_id}")).status_code == 404
