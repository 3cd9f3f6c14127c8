"""What a client asks, and a real server answers: the same with either kind of client."""

import json
import threading
import uuid
from datetime import datetime

import pytest
from anyio import to_thread

from agentflow_server import client as clients
from agentflow_server.client import AgentflowClient, AsyncAgentflowClient
from agentflow_server.models import Run, Thread

NOWHERE = "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11"


async def test_a_thread_is_made_found_changed_and_deleted(ask):
    thread = await ask("create_thread", metadata={"topic": "billing"})
    assert isinstance(thread, Thread)
    assert isinstance(thread.created_at, datetime)
    assert await ask("get_thread", thread.thread_id) == thread
    renamed = await ask("update_thread", thread.thread_id, name="Bills", metadata={"n": 1})
    assert (renamed.name, renamed.metadata) == ("Bills", {"topic": "billing", "n": 1})
    assert await ask("delete_thread", thread.thread_id) is None
    with pytest.raises(clients.NotFound) as caught:
        await ask("get_thread", thread.thread_id)
    error = caught.value
    assert (error.status, error.code, error.detail) == (404, "not_found", str(error))
    assert error.request_id


async def test_a_thread_that_was_never_there_cannot_be_deleted(ask):
    with pytest.raises(clients.NotFound):
        await ask("delete_thread", NOWHERE)


async def test_a_list_goes_over_all_its_pages(ask):
    mark = uuid.uuid4().hex
    made = [await ask("create_thread", metadata={"mark": mark}) for _ in range(5)]
    found = await ask("list_threads", metadata={"mark": mark}, page_size=2, status="idle")
    assert [thread.thread_id for thread in found] == [t.thread_id for t in reversed(made)]


async def test_a_message_is_answered(ask):
    thread = await ask("create_thread")
    turn = await ask("send", thread.thread_id, "Hello you", metadata={"n": 1}, agent="talk")
    assert (turn.status, turn.text) == ("success", "Hello you ")
    messages = await ask("list_messages", thread.thread_id, page_size=1)
    assert [(m.role, m.content) for m in messages] == [
        ("user", "Hello you"),
        ("assistant", "Hello you "),
    ]
    runs = await ask("list_runs", thread.thread_id)
    assert [run.run_id for run in runs] == [turn.run_id]
    assert (await ask("get_run", thread.thread_id, turn.run_id)).status == "success"


async def test_a_message_of_parts_is_answered(ask):
    thread = await ask("create_thread")
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]
    turn = await ask("send", thread.thread_id, parts)
    assert turn.text == "Hello you"


def test_the_text_of_an_answer_in_parts_is_that_of_its_texts():
    message = {
        "message_id": NOWHERE, "thread_id": NOWHERE, "run_id": NOWHERE, "role": "assistant",
        "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}],
        "created_at": "2026-11-22T09:30:00Z", "metadata": {},
    }  # fmt: skip
    turn = {"thread_id": NOWHERE, "run_id": NOWHERE, "status": "success", "message": message}
    assert clients.Turn.model_validate(turn | {"messages": [message]}).text == "ab"


async def test_a_run_that_fails_says_why_and_which_it_was(ask):
    thread = await ask("create_thread")
    with pytest.raises(clients.RunFailed) as caught:
        await ask("send", thread.thread_id, "fail")
    assert (caught.value.code, caught.value.status) == ("agent_failed", 500)
    assert caught.value.document["thread_id"] == thread.thread_id


async def test_a_stream_shows_every_event_in_order(ask):
    thread = await ask("create_thread")
    events = await ask("stream", thread.thread_id, "one two three", config={"tags": ["a"]})
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (events[0].type, events[-1].type) == ("run.started", "run.completed")
    deltas = [event.data["delta"] for event in events if event.type == "message.delta"]
    assert "".join(deltas) == "one two three "
    assert {event.run_id for event in events} == {events[0].data["run_id"]}


async def test_a_run_in_the_background_is_waited_for(ask):
    thread = await ask("create_thread")
    run = await ask("start", thread.thread_id, "Hello", after_seconds=0.01)
    assert isinstance(run, Run)
    turn = await ask("wait", thread.thread_id, run.run_id, timeout=30)
    assert (turn.run_id, turn.status, turn.text) == (run.run_id, "success", "Hello ")
    events = await ask("follow", thread.thread_id, run.run_id, after=2)
    assert events[0].seq == 3
    with pytest.raises(clients.InvalidRequest):
        await ask("follow", thread.thread_id, run.run_id, after=2000)


async def test_waiting_for_a_run_that_fails_raises_as_sending_does(ask):
    thread = await ask("create_thread")
    run = await ask("start", thread.thread_id, "fail")
    with pytest.raises(clients.RunFailed) as caught:
        await ask("wait", thread.thread_id, run.run_id)
    assert caught.value.code == "agent_failed"
    assert caught.value.document["run_id"] == run.run_id


async def test_waiting_ends_with_the_time_that_was_given(ask, served):
    thread = await ask("create_thread")
    run = await ask("start", thread.thread_id, "hold")
    with pytest.raises(clients.TimedOut):
        await ask("wait", thread.thread_id, run.run_id, timeout=0.2)
    with pytest.raises(clients.TimedOut):
        await ask("wait", thread.thread_id, run.run_id, timeout=0)
    await to_thread.run_sync(served.let_go)
    assert (await ask("wait", thread.thread_id, run.run_id)).status == "success"


async def test_a_run_is_cancelled_in_line_and_waiting_says_so(ask, served):
    thread = await ask("create_thread")
    running = await ask("start", thread.thread_id, "hold")
    waiting = await ask("start", thread.thread_id, "never")
    stopped = await ask("cancel_run", thread.thread_id, waiting.run_id)
    assert stopped.status == "cancelled"
    assert (await ask("wait", thread.thread_id, waiting.run_id)).status == "cancelled"
    with pytest.raises(clients.Conflict) as caught:
        await ask("cancel_run", thread.thread_id, waiting.run_id)
    assert caught.value.code == "run_ended"
    await to_thread.run_sync(served.let_go)
    assert (await ask("wait", thread.thread_id, running.run_id)).text == "hold "


async def test_a_question_is_found_and_answered(ask):
    thread = await ask("create_thread")
    turn = await ask("send", thread.thread_id, "ask")
    assert turn.status == "interrupted"
    assert (turn.message, turn.text) == (None, "")
    assert turn.interrupts[0].value == {"question": "Really?"}
    asked = [found for found in await ask("list_interrupts") if found.run_id == turn.run_id]
    assert asked[0].interrupts == turn.interrupts
    answered = await ask("resume", thread.thread_id, turn.run_id, "yes")
    assert (answered.run_id, answered.text) == (turn.run_id, "you said yes")
    with pytest.raises(clients.Conflict) as caught:
        await ask("resume", thread.thread_id, turn.run_id, "no")
    assert caught.value.code == "not_interrupted"


async def test_an_answer_can_be_watched(ask):
    thread = await ask("create_thread")
    events = await ask("stream", thread.thread_id, "ask")
    assert events[-1].type == "interrupt"
    answers = {found["interrupt_id"]: "no" for found in events[-1].data["interrupts"]}
    more = await ask("stream_resume", thread.thread_id, events[0].run_id, answers=answers)
    assert more[0].seq == events[-1].seq + 1
    assert (more[0].type, more[-1].type) == ("run.resumed", "run.completed")


async def test_an_answer_can_be_given_in_the_background(ask):
    thread = await ask("create_thread")
    run = await ask("start", thread.thread_id, "ask")
    turn = await ask("wait", thread.thread_id, run.run_id)
    assert [found.value for found in turn.interrupts] == [{"question": "Really?"}]
    resumed = await ask("start_resume", thread.thread_id, run.run_id, "perhaps")
    assert resumed.run_id == run.run_id
    assert (await ask("wait", thread.thread_id, run.run_id)).text == "you said perhaps"


async def test_a_thread_is_copied_with_its_runs(ask):
    thread = await ask("create_thread")
    await ask("send", thread.thread_id, "Hello")
    copy = await ask("copy_thread", thread.thread_id, metadata={"copy": True})
    assert (copy.thread_id != thread.thread_id, copy.metadata) == (True, {"copy": True})
    (run,) = await ask("list_runs", copy.thread_id)
    turn = await ask("wait", copy.thread_id, run.run_id)
    assert (turn.thread_id, turn.text) == (copy.thread_id, "Hello ")


async def test_states_of_a_graph_are_read(ask):
    thread = await ask("create_thread")
    await ask("send", thread.thread_id, "Hello", agent="graph")
    state = await ask("get_state", thread.thread_id)
    assert len(state.values["messages"]) == 2
    history = await ask("list_history", thread.thread_id, page_size=1)
    assert history[0] == state
    assert len(history) > 2


async def test_the_agents_are_listed(ask):
    agents = await ask("list_agents")
    assert [(agent.name, agent.default) for agent in agents] == [
        ("talk", True),
        ("stuck", False),
        ("graph", False),
    ]


async def test_a_key_of_the_callers_makes_a_repetition_the_same_request(ask):
    made = [await ask("create_thread", idempotency_key=f"k-{id(ask)}") for _ in range(2)]
    assert made[0] == made[1]


async def test_what_is_no_id_finds_nothing_and_reaches_no_other_route(ask):
    for odd in ("..", ".", "a/b", "?x=1", "%2e%2e", ""):
        with pytest.raises((clients.NotFound, clients.InvalidRequest)):
            await ask("get_run", NOWHERE, odd)


async def test_an_error_names_the_fields(ask):
    thread = await ask("create_thread")
    with pytest.raises(clients.InvalidRequest) as caught:
        await ask("send", thread.thread_id, "")
    assert caught.value.document["errors"]


def test_both_clients_have_the_same_methods():
    public = [
        {name for name in dir(kind) if not name.startswith("_")}
        for kind in (AgentflowClient, AsyncAgentflowClient)
    ]
    assert public[0] == public[1]


def test_a_client_may_be_shared_by_threads(served, token):
    found: list[str] = []
    with AgentflowClient(served.url, token()) as client:
        thread_id = client.create_thread().thread_id

        def look() -> None:
            found.append(client.get_thread(thread_id).thread_id)

        threads = [threading.Thread(target=look) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [thread_id] * 20


def test_an_iteration_may_be_left_early(served, token):
    with AgentflowClient(served.url, token()) as client:
        thread = client.create_thread()
        for event in client.stream(thread.thread_id, "one two three"):
            if event.type == "run.started":
                break
        client.wait(thread.thread_id, event.run_id)
        assert [run.status for run in client.list_runs(thread.thread_id)] == ["success"]


async def test_a_member_that_the_client_does_not_know_is_no_problem(connect, script, json_answer):
    thread = {
        "thread_id": NOWHERE, "name": None, "status": "idle", "metadata": {}, "interrupts": [],
        "created_at": "2026-11-22T09:30:00Z", "updated_at": "2026-11-22T09:30:00Z", "mood": "new",
    }  # fmt: skip
    client = connect(script(lambda _: json_answer(thread)).url)
    assert (await client("get_thread", NOWHERE)).thread_id == NOWHERE


async def test_without_a_credential_none_is_sent(connect, script, json_answer):
    server = script(lambda _: json_answer({"data": []}))
    client = connect(server.url + "/mounted/here/")
    assert await client("list_agents") == []
    assert "authorization" not in server.asked[0].headers
    assert server.asked[0].path == "/mounted/here/agents"
    assert await client("get_authenticated_headers") == {}
    assert client.client.is_token_valid() is False
    assert json.dumps(server.asked[0].headers).count("agentflow-client") == 1
