"""Stopping, answering and following runs, over real HTTP."""

import asyncio
import json

SLOW = """
import asyncio
async def app(messages, config):
    yield "half"
    if messages[-1]["content"] == "wait":
        await asyncio.Event().wait()
"""

ASKING = """
from agentflow_server.interfaces import Agent, AgentAsked, MessageCompleted
from agentflow_server.models import Interrupt, NewMessage

class Asking(Agent):
    kind = "asking"
    remembers = True
    async def stream(self, context, messages):
        if not context.answers:
            names = messages[-1].content.split()
            yield AgentAsked([Interrupt(interrupt_id=name, value=name) for name in names])
            return
        yield MessageCompleted(NewMessage("assistant", str(context.answers[-1])))

app = Asking()
"""


async def start_run(client, thread_id, content="wait", **kwargs):
    body = {"content": content, "background": True, **kwargs.pop("body", {})}
    answer = await client.post(f"/threads/{thread_id}/messages", json=body, **kwargs)
    assert answer.status_code == 202, answer.text
    return answer


async def ended(client, url):
    async with asyncio.timeout(30):
        while not (run := (await client.get(url)).json())["ended_at"]:
            await asyncio.sleep(0.01)
    return run


async def test_a_message_in_the_background_is_a_202_with_the_run_and_its_url(serve, new_thread):
    client = await serve(SLOW)
    thread_id = await new_thread(client)
    answer = await start_run(client, thread_id, "go")
    run = answer.json()
    assert answer.headers["location"] == f"/threads/{thread_id}/runs/{run['run_id']}"
    assert (await ended(client, answer.headers["location"]))["status"] == "success"
    second = await start_run(client, thread_id)
    third = await start_run(client, thread_id)
    assert second.json()["status"] == "running"
    assert (third.json()["status"], third.json()["queue_position"]) == ("pending", 1)


async def test_the_same_key_in_the_background_finds_the_same_unfinished_run(serve, new_thread):
    client = await serve(SLOW)
    thread_id = await new_thread(client)
    key = {"Idempotency-Key": "k1"}
    first = await start_run(client, thread_id, headers=key)
    second = await start_run(client, thread_id, headers=key)
    assert first.json()["run_id"] == second.json()["run_id"]


async def test_cancelling_answers_with_the_run_that_has_ended(serve, new_thread):
    client = await serve(SLOW)
    url = (await start_run(client, await new_thread(client))).headers["location"]
    answer = await client.post(f"{url}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    again = await client.post(f"{url}/cancel", json={"action": "cancel"})
    assert (again.status_code, again.json()["code"]) == (409, "run_ended")
    wrong = await client.post(f"{url}/cancel", json={"action": "kill"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "body.action")


async def test_r41_a_stranger_neither_stops_nor_answers_nor_finds_a_question(
    serve, new_thread, as_user
):
    client = await serve(ASKING, auth="jwt")
    alice, bob = {"headers": as_user("alice")}, {"headers": as_user("bob")}
    thread_id = await new_thread(client, **alice)
    url = (await start_run(client, thread_id, "q", **alice)).headers["location"]
    async with asyncio.timeout(30):
        while (await client.get(url, **alice)).json()["status"] != "interrupted":
            await asyncio.sleep(0.01)
    assert (await client.post(f"{url}/cancel", **bob)).status_code == 404
    assert (await client.post(f"{url}/resume", json={"value": 1}, **bob)).status_code == 404
    assert (await client.get("/interrupts", **bob)).json()["data"] == []
    (found,) = (await client.get("/interrupts", **alice)).json()["data"]
    assert (found["thread_id"], found["interrupts"][0]["value"]) == (thread_id, "q")


async def test_a_question_is_in_the_answer_the_run_the_thread_and_the_stream(serve, new_thread):
    client = await serve(ASKING)
    thread_id = await new_thread(client)
    answer = await client.post(f"/threads/{thread_id}/messages", json={"content": "q"})
    asked = answer.json()
    assert (asked["status"], asked["message"]) == ("interrupted", None)
    assert asked["interrupts"] == [{"interrupt_id": "q", "value": "q"}]
    thread = (await client.get(f"/threads/{thread_id}")).json()
    assert (thread["status"], thread["interrupts"]) == ("interrupted", asked["interrupts"])
    url = f"/threads/{thread_id}/runs/{asked['run_id']}"
    assert (await client.get(url)).json()["interrupts"] == asked["interrupts"]
    events = (await client.get(f"{url}/events")).text
    assert events.endswith("\n\n")
    last = events.strip().split("\n\n")[-1].splitlines()
    assert last[1] == "event: interrupt"
    assert json.loads(last[2].removeprefix("data: "))["interrupts"] == asked["interrupts"]


async def test_an_answer_resumes_the_run_once(serve, new_thread):
    client = await serve(ASKING)
    thread_id = await new_thread(client)
    asked = await client.post(f"/threads/{thread_id}/messages", json={"content": "q"})
    url = f"/threads/{thread_id}/runs/{asked.json()['run_id']}"
    answer = await client.post(f"{url}/resume", json={"value": {"ok": True}})
    assert answer.status_code == 200
    assert answer.json()["message"]["content"] == "{'q': {'ok': True}}"
    again = await client.post(f"{url}/resume", json={"value": {"ok": True}})
    assert (again.status_code, again.json()["code"]) == (409, "not_interrupted")
    assert (await client.get("/interrupts")).json()["data"] == []


async def test_a_resumed_run_streams_only_what_is_new(serve, new_thread):
    client = await serve(ASKING)
    thread_id = await new_thread(client)
    asked = await client.post(f"/threads/{thread_id}/messages", json={"content": "q"})
    url = f"/threads/{thread_id}/runs/{asked.json()['run_id']}"
    stream = await client.post(f"{url}/resume", json={"value": 1, "stream": True})
    names = [line[7:] for line in stream.text.splitlines() if line.startswith("event: ")]
    assert names == ["run.resumed", "message.completed", "run.completed"]
    everything = await client.get(f"{url}/events")
    names = [line[7:] for line in everything.text.splitlines() if line.startswith("event: ")]
    assert names == [
        "run.started", "interrupt", "run.resumed", "message.completed", "run.completed",
    ]  # fmt: skip


async def test_several_questions_want_an_answer_each(serve, new_thread):
    client = await serve(ASKING)
    thread_id = await new_thread(client)
    asked = await client.post(f"/threads/{thread_id}/messages", json={"content": "a b"})
    url = f"/threads/{thread_id}/runs/{asked.json()['run_id']}/resume"
    for body in (
        {"value": 1}, {"answers": {"a": 1}}, {"answers": {"a": 1, "b": 2, "c": 3}}, {}, None,
        {"value": 1, "answers": {"a": 1, "b": 2}}, {"value": 1, "background": True, "stream": True},
    ):  # fmt: skip
        refused = await client.post(url, json=body)
        assert refused.status_code == 422, body
    answer = await client.post(url, json={"answers": {"a": 1, "b": None}})
    assert answer.json()["message"]["content"] == "{'a': 1, 'b': None}"


async def test_a_new_message_makes_an_old_question_moot(serve, new_thread):
    client = await serve(ASKING)
    thread_id = await new_thread(client)
    first = await client.post(f"/threads/{thread_id}/messages", json={"content": "a"})
    second = await client.post(f"/threads/{thread_id}/messages", json={"content": "b"})
    url = f"/threads/{thread_id}/runs"
    stale = await client.post(f"{url}/{first.json()['run_id']}/resume", json={"value": 1})
    assert (stale.status_code, stale.json()["code"]) == (409, "not_interrupted")
    fresh = await client.post(f"{url}/{second.json()['run_id']}/resume", json={"value": 1})
    assert fresh.status_code == 200


async def test_a_client_that_asked_for_it_stops_its_run_by_leaving(serve, new_thread):
    client = await serve(SLOW)
    thread_id = await new_thread(client)
    url = f"/threads/{thread_id}/messages"
    for stream in (True, False):
        body = {"content": "wait", "stream": stream, "on_disconnect": "cancel"}
        async with (
            client.stream("POST", url, json=body)
            if stream
            else _hung_up(client, url, body) as answer
        ):
            if stream:
                assert await anext(answer.aiter_lines()) == "id: 1"
        (run, *_) = (await client.get(f"/threads/{thread_id}/runs")).json()["data"]
        found = await ended(client, f"/threads/{thread_id}/runs/{run['run_id']}")
        assert found["status"] == "cancelled"


class _hung_up:  # noqa: N801 - reads as a verb
    """Send a request and close the connection when its run is there."""

    def __init__(self, client, url, body):
        self._client, self._url, self._body = client, url, body

    async def __aenter__(self):
        _, writer = await asyncio.open_connection("127.0.0.1", self._client.base_url.port)
        text = json.dumps(self._body).encode()
        head = f"POST {self._url} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        runs = self._url.replace("/messages", "/runs?limit=1")
        async with asyncio.timeout(30):
            while (await self._client.get(runs)).json()["data"][0]["ended_at"] is not None:
                await asyncio.sleep(0.01)
        writer.close()

    async def __aexit__(self, *exc_info):
        pass


async def test_a_client_that_leaves_otherwise_stops_nothing(serve, new_thread):
    client = await serve(SLOW)
    thread_id = await new_thread(client)
    url = f"/threads/{thread_id}/messages"
    async with client.stream("POST", url, json={"content": "wait", "stream": True}) as answer:
        assert await anext(answer.aiter_lines()) == "id: 1"
    (run,) = (await client.get(f"/threads/{thread_id}/runs")).json()["data"]
    assert run["status"] == "running"


async def test_an_event_id_that_the_run_does_not_have_is_refused(serve, new_thread):
    client = await serve(SLOW)
    thread_id = await new_thread(client)
    done = await client.post(f"/threads/{thread_id}/messages", json={"content": "go"})
    url = f"/threads/{thread_id}/runs/{done.json()['run_id']}/events"
    assert (await client.get(url, headers={"Last-Event-ID": "4"})).status_code == 204
    for unknown in ("5", "99", "-1", "1.0", "x", "99999999999"):
        answer = await client.get(url, headers={"Last-Event-ID": unknown})
        assert answer.status_code == 422, unknown


async def test_a_delay_that_makes_no_sense_is_refused(serve, new_thread):
    client = await serve(SLOW)
    url = f"/threads/{await new_thread(client)}/messages"
    for delay in (-1, "1", True, 1e12, None):
        body = {"content": "x", "after_seconds": delay, "background": delay is not None}
        answer = await client.post(url, json=body)
        assert answer.status_code == (200 if delay is None else 422), delay
    alone = await client.post(url, json={"content": "x", "after_seconds": 1})
    assert alone.json()["errors"][0]["message"] == "after_seconds needs background: true"
