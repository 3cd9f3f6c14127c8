"""Messages over HTTP: wait, stream, history, idempotency, failing agents."""

import asyncio
import json
import uuid

import pytest

COUNTING = """
import asyncio
async def app(messages, config):
    await asyncio.sleep(0.02)
    return f"{len(messages)}: " + messages[-1]["content"]
"""

FAILING = """
def app(messages, config):
    if "fail" in messages[-1]["content"]:
        raise RuntimeError("postgresql://admin:hunter2@db/prod is down")
    return "fine"
"""

STREAMING = """
import asyncio
async def app(messages, config):
    for word in ("one ", "two ", "three"):
        yield word
        await asyncio.sleep(0.03)
"""

GATED = """
import asyncio
gates = {}
async def app(messages, config):
    gate = gates.setdefault("gate", asyncio.Event())
    if messages[-1]["content"] == "open":
        gate.set()
        return "opened"
    await asyncio.wait_for(gate.wait(), 10)
    return "passed"
"""


def events_of(text: str) -> list[tuple[int, str, dict]]:
    """Parse a server-sent event stream the way a browser does."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":")
        )
        if fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


async def test_a_message_is_answered(serve, new_thread):
    client = await serve()
    thread_id = await new_thread(client)
    answer = await client.post(f"/threads/{thread_id}/messages", json={"content": "Hello"})
    assert answer.status_code == 200
    result = answer.json()
    assert result["thread_id"] == thread_id
    assert result["status"] == "success"
    assert result["message"]["role"] == "assistant"
    assert result["message"]["content"] == "echo: Hello"
    assert result["messages"] == [result["message"]]
    run = (await client.get(f"/threads/{thread_id}/runs/{result['run_id']}")).json()
    assert run["status"] == "success"
    assert run["created_at"] <= run["started_at"] <= run["ended_at"]


async def test_the_history_is_read_oldest_first_and_paged(serve, new_thread):
    client = await serve(COUNTING)
    thread_id = await new_thread(client)
    for text in "abc":
        await client.post(f"/threads/{thread_id}/messages", json={"content": text})
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"/threads/{thread_id}/messages", params=params)).json()
        seen += [(message["role"], message["content"]) for message in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [
        ("user", "a"),
        ("assistant", "1: a"),
        ("user", "b"),
        ("assistant", "3: b"),
        ("user", "c"),
        ("assistant", "5: c"),
    ]


async def test_overlapping_messages_are_all_answered_in_order(serve, new_thread):
    client = await serve(COUNTING)
    thread_id = await new_thread(client)
    answers = await asyncio.gather(
        *(
            client.post(f"/threads/{thread_id}/messages", json={"content": f"m{n}"})
            for n in range(6)
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 6
    history = (await client.get(f"/threads/{thread_id}/messages")).json()["data"]
    assert len(history) == 12
    assert [message["role"] for message in history] == ["user", "assistant"] * 6
    for turn in range(6):
        asked, answered = history[2 * turn : 2 * turn + 2]
        assert answered["content"] == f"{2 * turn + 1}: {asked['content']}"
        assert answered["run_id"] == asked["run_id"]


async def test_a_busy_thread_may_refuse(serve, new_thread):
    client = await serve(GATED)
    thread_id, other = await new_thread(client), await new_thread(client)
    url = f"/threads/{thread_id}/messages"
    waiting = asyncio.create_task(client.post(url, json={"content": "wait"}))
    while (await client.get(f"/threads/{thread_id}")).json()["status"] != "busy":
        pass
    refused = await client.post(url, json={"content": "now", "on_busy": "reject"})
    assert (refused.status_code, refused.json()["code"]) == (409, "thread_busy")
    deleted = await client.delete(f"/threads/{thread_id}")
    assert (deleted.status_code, deleted.json()["code"]) == (409, "thread_busy")
    await client.post(f"/threads/{other}/messages", json={"content": "open"})
    assert (await waiting).json()["message"]["content"] == "passed"
    history = (await client.get(url)).json()["data"]
    assert [message["content"] for message in history] == ["wait", "passed"]


async def test_r38_an_agent_that_raises_ends_the_turn_and_tells_nothing(serve, new_thread, caplog):
    client = await serve(FAILING)
    thread_id = await new_thread(client)
    url = f"/threads/{thread_id}/messages"
    answer = await client.post(url, json={"content": "please fail"})
    assert answer.status_code == 500
    problem = answer.json()
    assert problem["code"] == "agent_failed"
    assert problem["thread_id"] == thread_id
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text, "the log has the traceback"
    run = (await client.get(f"/threads/{thread_id}/runs/{problem['run_id']}")).json()
    assert run["status"] == "error"
    assert run["error"] == {"code": "agent_failed", "detail": problem["detail"]}
    assert (await client.get(f"/threads/{thread_id}")).json()["status"] == "error"
    again = await client.post(url, json={"content": "hello"})
    assert again.json()["message"]["content"] == "fine"
    assert (await client.get(f"/threads/{thread_id}")).json()["status"] == "idle"


async def test_r38_a_failing_stream_tells_nothing_either(serve, new_thread):
    client = await serve(FAILING)
    thread_id = await new_thread(client)
    answer = await client.post(
        f"/threads/{thread_id}/messages", json={"content": "fail", "stream": True}
    )
    events = events_of(answer.text)
    assert [kind for _, kind, _ in events] == ["run.started", "run.failed"]
    assert events[-1][2]["error"]["code"] == "agent_failed"
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "how", [{"json": {"stream": True}}, {"headers": {"Accept": "text/event-stream"}}]
)
async def test_a_turn_is_streamed_as_server_sent_events(serve, new_thread, how):
    client = await serve(STREAMING)
    thread_id = await new_thread(client)
    body = {"content": "go", **how.get("json", {})}
    answer = await client.post(
        f"/threads/{thread_id}/messages", json=body, headers=how.get("headers")
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    kinds = [kind for _, kind, _ in events]
    assert kinds[0] == "run.started"
    assert kinds[-2:] == ["message.completed", "run.completed"]
    deltas = [data for _, kind, data in events if kind == "message.delta"]
    assert "".join(delta["delta"] for delta in deltas) == "one two three"
    completed = events[-2][2]
    assert completed["content"] == "one two three"
    assert {delta["message_id"] for delta in deltas} == {completed["message_id"]}
    history = (await client.get(f"/threads/{thread_id}/messages")).json()["data"]
    assert history[-1] == completed


async def test_a_dropped_stream_does_not_stop_the_run_and_can_be_resumed(serve, new_thread):
    client = await serve(STREAMING)
    thread_id = await new_thread(client)
    url = f"/threads/{thread_id}/messages"
    async with client.stream("POST", url, json={"content": "go", "stream": True}) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("event: message.delta"):
                break
    run_id = (await client.get(f"/threads/{thread_id}/runs")).json()["data"][0]["run_id"]
    events_url = f"/threads/{thread_id}/runs/{run_id}/events"
    whole = events_of((await client.get(events_url)).text)
    assert whole[-1][1] == "run.completed"
    rest = events_of((await client.get(events_url, headers={"Last-Event-ID": "2"})).text)
    assert rest == whole[2:]
    over = await client.get(events_url, headers={"Last-Event-ID": "x"})
    assert over.status_code == 422


async def test_an_idempotency_key_makes_a_retry_safe(serve, new_thread):
    client = await serve(COUNTING)
    thread_id = await new_thread(client)
    url, key = f"/threads/{thread_id}/messages", {"Idempotency-Key": "k-1"}
    first = await client.post(url, json={"content": "once"}, headers=key)
    second = await client.post(url, json={"content": "once"}, headers=key)
    assert first.json() == second.json()
    history = (await client.get(url)).json()["data"]
    assert len(history) == 2
    other = await client.post(url, json={"content": "twice"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_threads_are_created_once_per_idempotency_key(serve, as_user):
    client = await serve(auth="jwt")
    key = {"Idempotency-Key": "same"}
    first = await client.post("/threads", headers=as_user("alice") | key)
    second = await client.post("/threads", headers=as_user("alice") | key)
    bobs = await client.post("/threads", headers=as_user("bob") | key)
    assert first.json() == second.json()
    assert bobs.json()["thread_id"] != first.json()["thread_id"]


async def test_a_key_whose_request_is_still_running_is_a_conflict(serve, new_thread):
    client = await serve(GATED)
    thread_id, other = await new_thread(client), await new_thread(client)
    url, key = f"/threads/{thread_id}/messages", {"Idempotency-Key": "k"}
    waiting = asyncio.create_task(client.post(url, json={"content": "wait"}, headers=key))
    while (await client.get(f"/threads/{thread_id}")).json()["status"] != "busy":
        pass
    early = await client.post(url, json={"content": "wait"}, headers=key)
    assert (early.status_code, early.json()["code"]) == (409, "request_in_progress")
    await client.post(f"/threads/{other}/messages", json={"content": "open"})
    late = await client.post(url, json={"content": "wait"}, headers=key)
    assert late.json() == (await waiting).json()


async def test_a_failed_turn_is_replayed_as_failed(serve, new_thread):
    client = await serve(FAILING)
    url, key = f"/threads/{await new_thread(client)}/messages", {"Idempotency-Key": "k"}
    first = await client.post(url, json={"content": "fail"}, headers=key)
    second = await client.post(url, json={"content": "fail"}, headers=key)
    assert (first.status_code, first.json()) == (second.status_code, second.json())


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü"])
async def test_a_bad_idempotency_key_is_refused(serve, key):
    client = await serve()
    answer = await client.post("/threads", headers={"Idempotency-Key": key.encode()})
    assert answer.status_code == 422


async def test_parts_are_accepted_and_kept(serve, new_thread):
    client = await serve()
    thread_id = await new_thread(client)
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}]
    answer = await client.post(
        f"/threads/{thread_id}/messages", json={"content": parts, "metadata": {"lang": "en"}}
    )
    assert answer.status_code == 200
    asked = (await client.get(f"/threads/{thread_id}/messages")).json()["data"][0]
    assert asked["content"] == parts
    assert asked["metadata"] == {"lang": "en"}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"content": ""}, {"content": None}, {"content": 1}, {"content": []}, {"content": {}},
        {"content": [{"text": "no type"}]}, {"content": [{"type": "text"}]},
        {"content": ["text"]}, {"content": "x", "stream": "yes"}, {"content": "x", "role": "system"},
        {"content": "x", "on_busy": "wait"}, {"content": "x", "config": []},
        {"content": "x", "metadata": "m"}, [], "text", 7, None,
    ],
)  # fmt: skip
async def test_a_bad_message_is_refused_and_nothing_is_stored(serve, new_thread, body):
    client = await serve()
    thread_id = await new_thread(client)
    answer = await client.post(f"/threads/{thread_id}/messages", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert (await client.get(f"/threads/{thread_id}/messages")).json()["data"] == []


async def test_several_agents_share_a_server_and_a_thread_keeps_its_own(serve, project, new_thread):
    second = project.module("def app(messages, config):\n    return 'second'\n")
    first = project.module("def app(messages, config):\n    return 'first'\n")
    agents = {"one": f"{first}:app", "two": f"{second}:app"}
    client = await serve(agent=..., agents=agents)
    listed = (await client.get("/agents")).json()["data"]
    assert listed == [
        {"name": "one", "kind": "function", "default": True},
        {"name": "two", "kind": "function", "default": False},
    ]
    url = f"/threads/{await new_thread(client)}/messages"
    answer = await client.post(url, json={"content": "x", "agent": "two"})
    assert answer.json()["message"]["content"] == "second"
    kept = await client.post(url, json={"content": "x"})
    assert kept.json()["message"]["content"] == "second"
    wrong = await client.post(url, json={"content": "x", "agent": "one"})
    assert (wrong.status_code, wrong.json()["code"]) == (409, "wrong_agent")
    unknown = await client.post(url, json={"content": "x", "agent": "three"})
    assert unknown.status_code == 404
    fresh = f"/threads/{await new_thread(client)}/messages"
    assert (await client.post(fresh, json={"content": "x"})).json()["message"]["content"] == "first"


async def test_a_message_to_an_unknown_thread_is_a_404(serve):
    client = await serve()
    answer = await client.post(f"/threads/{uuid.uuid4()}/messages", json={"content": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_thread_gets_a_readable_name_in_the_background(serve, new_thread):
    client = await serve()
    thread_id = await new_thread(client)
    text = "How do I cancel\nmy subscription " + "really " * 20
    await client.post(f"/threads/{thread_id}/messages", json={"content": text})
    async with asyncio.timeout(5):
        while (name := (await client.get(f"/threads/{thread_id}")).json()["name"]) is None:
            pass
    assert name.startswith("How do I cancel my subscription really")
    assert len(name) <= 60


NAMER = """
import asyncio
def app(messages, config):
    return "ok"
async def slow_name(messages):
    await asyncio.sleep(0.1)
    return messages[0]["content"].upper() + "\\n!"
class Broken:
    def generate_name(self, messages):
        raise ValueError("no model")
"""


@pytest.mark.parametrize(("generator", "expected"), [("slow_name", "HI !"), ("Broken", "hi")])
async def test_ones_own_generator_names_threads(serve, project, new_thread, generator, expected):
    module = project.module(NAMER)
    client = await serve(agent=f"{module}:app", thread_name_generator=f"{module}:{generator}")
    thread_id = await new_thread(client)
    await client.post(f"/threads/{thread_id}/messages", json={"content": "hi"})
    async with asyncio.timeout(5):
        while (name := (await client.get(f"/threads/{thread_id}")).json()["name"]) is None:
            pass
    assert name == expected
