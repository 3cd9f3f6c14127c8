"""What can be said on a WebSocket, and what is answered."""

import asyncio
import json

import pytest
from fastapi.testclient import TestClient

from agentflow_server.errors import StoreUnavailable

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_a_message_is_accepted_and_answered_with_the_events_of_its_run(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    accepted = await line.ask("message", id="a", content="hi", metadata={"x": 1})
    assert (accepted["type"], accepted["id"]) == ("accepted", "a")
    run = accepted["run"]
    assert run["thread_id"] == thread_id
    events = await line.events("run.completed")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["run_id"] for event in events} == {run["run_id"]}
    url = f"/threads/{thread_id}/runs/{run['run_id']}/events"
    streamed = (await server.http.get(url, headers=_headers(line))).text
    over_sse = [json.loads(part[6:]) for part in streamed.splitlines() if part[:5] == "data:"]
    assert over_sse == [event["data"] for event in events]
    names = [part[7:] for part in streamed.splitlines() if part[:6] == "event:"]
    assert names == [event["event"] for event in events]


def _headers(line):
    return {"Authorization": line.connection.request.headers["Authorization"]}


async def test_ping_is_answered_with_its_id(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    assert await line.ask("ping", id="x" * 64) == {"type": "pong", "id": "x" * 64}
    assert await line.ask("ping") == {"type": "pong"}


@pytest.mark.parametrize(
    ("frame", "code", "echoed"),
    [
        ("", "invalid_request", None),
        ("{", "invalid_request", None),
        ("null", "invalid_request", None),
        ('["ping"]', "invalid_request", None),
        ('{"type": 1, "id": "a"}', "invalid_request", None),
        ('{"id": "a"}', "invalid_request", None),
        ('{"type": "ping", "type": "ping"}', "invalid_request", None),
        ('{"type": "ping", "id": NaN}', "invalid_request", None),
        ('{"type": "ping", "id": 7}', "invalid_request", None),
        ('{"type": "ping", "id": "' + "x" * 65 + '"}', "invalid_request", None),
        ('{"type": "dance", "id": "a"}', "invalid_request", "a"),
        ('{"type": "auth", "id": "a", "token": "x"}', "conflict", "a"),
        ('{"type": "message", "id": "a"}', "invalid_request", "a"),
        ('{"type": "message", "id": "a", "content": ""}', "invalid_request", "a"),
        ('{"type": "message", "id": "a", "content": "x", "extra": 1}', "invalid_request", "a"),
        ('{"type": "message", "id": "a", "content": "x", "agent": "no"}', "not_found", "a"),
        ('{"type": "message", "content": "x", "config": {"user_id": "bob"}}', "invalid_request",
         None),
        ('{"type": "cancel", "id": "a"}', "invalid_request", "a"),
        ('{"type": "cancel", "id": "a", "run_id": "x"}', "invalid_request", "a"),
        ('{"type": "cancel", "run_id": "UNKNOWN", "action": "kill"}', "invalid_request", None),
        ('{"type": "cancel", "id": "a", "run_id": "UNKNOWN"}', "not_found", "a"),
        ('{"type": "resume", "id": "a", "run_id": "UNKNOWN", "value": 1}', "not_found", "a"),
        ('{"type": "resume", "id": "a", "run_id": "UNKNOWN"}', "invalid_request", "a"),
        ('{"type": "follow", "id": "a", "run_id": "UNKNOWN"}', "not_found", "a"),
        ('{"type": "follow", "id": "a", "run_id": "UNKNOWN", "after": -1}', "invalid_request",
         "a"),
        ('{"type": "ping", "a": ' + "[" * 40 + "]" * 40 + "}", "invalid_request", None),
        ('{"type": "ping", "id": "\\u0000"}', "invalid_request", None),
        ('{"type": "ping", "id": "\\ud800"}', "invalid_request", None),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_command_is_said_and_the_socket_stays(
    serve, frame, code, echoed
):
    server = await serve()
    line = await server.enter(await server.new_thread())
    await line.connection.send(frame.replace("UNKNOWN", UNKNOWN))
    error = await line.hear()
    assert (error["type"], error["code"], error.get("id")) == ("error", code, echoed)
    assert error["status"] in {404, 409, 422}
    assert isinstance(error["detail"], str)
    assert await line.ask("ping") == {"type": "pong"}


async def test_a_wrong_member_is_named_and_never_repeated(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    error = await line.ask("message", content=["secret-7"], metadata="secret-7")
    assert error["detail"] == "The request is not valid"
    assert {"field": "metadata", "message": "Input should be a valid dictionary"} in error["errors"]
    assert "secret-7" not in json.dumps(error)


async def test_a_background_message_is_accepted_and_can_be_followed_later(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    run = (await line.ask("message", content="hi", background=True))["run"]
    assert await line.ask("ping") == {"type": "pong"}
    assert (await line.ask("follow", run_id=run["run_id"]))["type"] == "accepted"
    events = await line.events("run.completed")
    assert events[0]["seq"] == 1


async def test_follow_goes_on_after_the_event_that_was_seen_last(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    run_id = (await line.ask("message", content="hi"))["run"]["run_id"]
    events = await line.events("run.completed")
    other = await server.enter(thread_id)
    assert (await other.ask("follow", run_id=run_id, after=2))["run"]["status"] == "success"
    assert await other.events("run.completed") == events[2:]
    last = events[-1]["seq"]
    assert (await other.ask("follow", run_id=run_id, after=last))["type"] == "accepted"
    assert (await other.ask("ping"))["type"] == "pong"
    error = await other.ask("follow", run_id=run_id, after=last + 1, id="f")
    assert (error["id"], error["detail"]) == ("f", "after: this run has no such event")


async def test_following_a_run_again_begins_anew(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    run_id = (await line.ask("message", content="wait"))["run"]["run_id"]
    await line.events("message.delta")
    assert (await line.ask("follow", run_id=run_id))["type"] == "accepted"
    server.agent.gate.set()
    events = await line.events("run.completed")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


async def test_a_run_is_cancelled_and_what_it_said_is_kept(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    run_id = (await line.ask("message", content="wait"))["run"]["run_id"]
    await line.events("message.delta")
    answer = await line.ask("cancel", run_id=run_id, id="c")
    assert (answer["type"], answer["id"], answer["run"]["status"]) == ("accepted", "c", "cancelled")
    assert server.agent.stopped == ["wait"]
    again = await line.ask("cancel", run_id=run_id)
    assert (again["status"], again["code"]) == (409, "run_ended")


async def test_an_interrupted_run_is_resumed_and_followed(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    run_id = (await line.ask("message", content="ask"))["run"]["run_id"]
    events = await line.events("interrupt")
    answer = await line.ask("resume", run_id=run_id, value="yes", id="r")
    assert (answer["type"], answer["id"]) == ("accepted", "r")
    resumed = await line.events("run.completed")
    assert resumed[0]["seq"] == events[-1]["seq"] + 1
    said = [e["data"]["content"] for e in resumed if e["event"] == "message.completed"]
    assert said == ["you said yes"]
    assert (await line.ask("resume", run_id=run_id, value="yes"))["code"] == "not_interrupted"


async def test_on_busy_is_as_over_http(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    await line.ask("message", content="wait")
    assert (await line.ask("message", content="hi", on_busy="reject"))["code"] == "thread_busy"
    queued = (await line.ask("message", content="hi"))["run"]
    assert (queued["status"], queued["queue_position"]) == ("pending", 1)
    server.agent.gate.set()
    await line.events("run.completed")
    assert {e["run_id"] for e in await line.events("run.completed")} == {queued["run_id"]}


async def test_each_command_wants_the_scope_of_its_route(serve):
    roles = {"reader": ["runs:read"], "writer": ["threads:write", "runs:create", "runs:read"]}
    server = await serve(authorization={"roles": roles})
    thread_id = await server.new_thread(roles=["writer"])
    reader = await server.enter(thread_id, claims={"roles": ["reader"]})
    for kind, scope in (("message", "runs:create"), ("resume", "runs:create"),
                        ("cancel", "runs:cancel")):  # fmt: skip
        error = await reader.ask(kind, id="s")
        assert (error["status"], error["code"], error["scope"]) == (403, "forbidden", scope)
    assert (await reader.ask("follow", run_id=UNKNOWN))["code"] == "not_found"
    writer = await server.enter(thread_id, claims={"roles": ["writer"]})
    assert (await writer.ask("message", content="hi"))["type"] == "accepted"


DECIDE = """
def decide(principal, action, resource):
    asked.append((principal.id, action, resource))
    return True

asked = []
def app(messages, config):
    return "x"
"""


async def test_the_authorizer_is_asked_about_each_command(serve, tmp_path):
    (tmp_path / "decider.py").write_text(DECIDE)
    server = await serve(authorization="decider:decide")
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    await line.ask("message", content="hi")
    import decider

    assert decider.asked[-2:] == [
        ("alice", "runs:read", thread_id),
        ("alice", "runs:create", thread_id),
    ]


@pytest.mark.parametrize(
    "quota",
    [{"per_principal": "4/hour"}, {"per_address": "4/hour"},
     {"routes": {"POST /threads/{thread_id}/messages": "2/hour"}}],
)  # fmt: skip
async def test_each_command_counts_as_a_request_of_its_route(serve, quota):
    server = await serve(rate_limit=quota)
    line = await server.enter(await server.new_thread())
    answers = [await line.ask("message", content="hi", id=str(n)) for n in range(3)]
    assert [answer["type"] for answer in answers] == ["accepted", "accepted", "error"]
    refused = answers[-1]
    assert (refused["status"], refused["code"], refused["id"]) == (429, "rate_limited", "2")
    assert 1 <= refused["retry_after"] <= 3600
    assert (await line.ask("ping"))["type"] == "pong"


async def test_so_many_runs_are_followed_on_one_socket(serve):
    server = await serve()
    server.rule(followed_runs=2)
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    for _ in range(2):
        assert (await line.ask("message", content="wait"))["type"] == "accepted"
    assert (await line.ask("message", content="hi"))["code"] == "rate_limited"
    runs = await server.http.get(f"/threads/{thread_id}/runs", headers=_headers(line))
    assert len(runs.json()["data"]) == 2, "what is refused is not stored"
    assert (await line.ask("message", content="hi", background=True))["type"] == "accepted"
    server.agent.gate.set()
    await line.events("run.completed")
    await line.events("run.completed")
    assert (await line.ask("message", content="hi"))["type"] == "accepted"


async def test_a_database_that_is_down_is_said_and_the_socket_stays(serve, monkeypatch):
    server = await serve()
    line = await server.enter(await server.new_thread())
    store = server.app.state.runner.store

    async def down(*_, **__):
        raise StoreUnavailable("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(store, "start_run", down)
        error = await line.ask("message", content="hi")
    assert (error["status"], error["code"]) == (503, "store_unavailable")
    assert "disk" not in error["detail"]
    assert (await line.ask("message", content="hi"))["type"] == "accepted"


async def test_a_database_that_is_down_while_events_are_sent_closes_with_1013(serve, monkeypatch):
    server = await serve()
    line = await server.enter(await server.new_thread())
    run_id = (await line.ask("message", content="hi"))["run"]["run_id"]
    await line.events("run.completed")

    async def down(*_, **__):
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(server.app.state.runner.store, "list_events", down)
    await line.say("follow", run_id=run_id)
    assert (await line.closing())[0] == 1013


@pytest.mark.parametrize("place", ["start_run", "list_events"])
async def test_a_bug_of_ours_closes_with_1011_and_tells_nothing(serve, monkeypatch, caplog, place):
    server = await serve()
    line = await server.enter(await server.new_thread())
    bystander = await server.enter(await server.new_thread())

    async def bug(*_, **__):
        raise ZeroDivisionError("the secret of the house")

    with monkeypatch.context() as broken:
        broken.setattr(server.app.state.runner.store, place, bug)
        await line.say("message", content="wait")
        assert await line.closing() == (1011, "Something went wrong on our side")
    assert "the secret of the house" in caplog.text
    assert (await bystander.ask("ping"))["type"] == "pong"


async def test_two_sockets_of_one_caller_hear_the_same(serve):
    server = await serve()
    thread_id = await server.new_thread()
    one, two = await server.enter(thread_id), await server.enter(thread_id)
    run_id = (await one.ask("message", content="wait"))["run"]["run_id"]
    assert (await two.ask("follow", run_id=run_id))["type"] == "accepted"
    server.agent.gate.set()
    assert await one.events("run.completed") == await two.events("run.completed")


async def test_commands_are_obeyed_in_their_order(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    for number in range(10):
        await line.say("message", content=str(number), id=str(number), background=True)
    accepted = [await line.hear() for _ in range(10)]
    assert [frame["id"] for frame in accepted] == [str(number) for number in range(10)]
    async with asyncio.timeout(10):
        while True:
            answer = await server.http.get(f"/threads/{thread_id}/messages", headers=_headers(line))
            said = [m["content"] for m in answer.json()["data"] if m["role"] == "assistant"]
            if len(said) == 10:
                break
            await asyncio.sleep(0.01)
    assert said == [f"alice: {number}" for number in range(10)]


def test_a_socket_works_where_nobody_runs_the_lifespan(make_app, as_user):
    app = make_app()
    client = TestClient(app)
    try:
        thread_id = client.post("/threads", headers=as_user("alice")).json()["thread_id"]
        with client.websocket_connect(f"/threads/{thread_id}/ws", headers=as_user("alice")) as line:
            assert line.receive_json()["type"] == "ready"
            line.send_json({"type": "message", "content": "hi"})
            assert line.receive_json()["type"] == "accepted"
            while (frame := line.receive_json())["event"] != "run.completed":
                pass
            assert frame["data"]["status"] == "success"
    finally:
        app._portal.close()
