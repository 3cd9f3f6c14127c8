"""Streams over lines that break: no event is missing, none comes twice, and there is an end."""

import asyncio
import json
import threading

import pytest
from anyio import to_thread

from agentflow_server.client import (
    AgentflowClient,
    AsyncAgentflowClient,
    InvalidRequest,
    ServerFailed,
    ServerUnreachable,
    TimedOut,
    UnexpectedAnswer,
)
from agentflow_server.client.sse import EventParser

NOWHERE = "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11"
IN_PROGRESS = 4
"""The pause for what is under way."""
STREAM = {"Content-Type": "text/event-stream"}


def event(number, kind="message.delta", **data):
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


END = event(3, "run.completed", thread_id=NOWHERE, run_id=NOWHERE, status="success")


def numbers(events):
    return [found.seq for found in events]


async def test_a_stream_that_breaks_again_and_again_has_every_event_once(connect, line, token):
    client = connect(line.url, token())
    thread = await client("create_thread")
    line.cut_after += [(b"event: ", times) for times in (1, 2, 3, 1)]
    before = line.connections
    events = await client("stream", thread.thread_id, "one two three four")
    assert numbers(events) == list(range(1, len(events) + 1))
    assert events[-1].type == "run.completed"
    text = "".join(found.data["delta"] for found in events if found.type == "message.delta")
    assert text == "one two three four "
    assert line.connections >= before + 4
    assert line.cut_after == []


async def test_an_answer_that_breaks_after_its_first_events_goes_on(connect, line, token):
    client = connect(line.url, token())
    thread = await client("create_thread")
    turn = await client("send", thread.thread_id, "ask")
    line.cut_after += [(b"event: ", 2)]
    events = await client("stream_resume", thread.thread_id, turn.run_id, "yes")
    assert (events[0].type, events[-1].type) == ("run.resumed", "run.completed")
    assert numbers(events) == list(range(events[0].seq, events[-1].seq + 1))


async def test_an_answer_that_breaks_before_its_first_event_is_not_sent_twice(connect, line, token):
    client = connect(line.url, token())
    thread = await client("create_thread")
    turn = await client("send", thread.thread_id, "ask")
    line.cut_after += [(b"event: ", 1)]
    with pytest.raises(ServerUnreachable):
        await client("stream_resume", thread.thread_id, turn.run_id, "yes")
    assert (await client("wait", thread.thread_id, turn.run_id)).text == "you said yes"


async def test_a_message_whose_answer_is_lost_is_not_answered_twice(connect, line, served, token):
    client = connect(line.url, token())
    thread = await client("create_thread")
    line.cut_after += [(b"HTTP/1.1 200", 1)]
    turn = await client("send", thread.thread_id, "Hello")
    assert turn.text == "Hello "
    assert len(await client("list_messages", thread.thread_id)) == 2
    line.cut_after += [(b"HTTP/1.1 202", 1)]
    await client("start", thread.thread_id, "again")
    assert len(await client("list_runs", thread.thread_id)) == 2


async def test_a_message_that_is_still_being_answered_is_waited_for(
    connect, line, served, token, monkeypatch
):
    gate = None

    def drop():
        nonlocal gate
        gate = served.hold()
        line.drop()

    def look_again(number):
        """Called between two attempts; the second one has found the first under way."""
        if number == IN_PROGRESS:
            gate.close()
        return 0.01

    monkeypatch.setattr("agentflow_server.client.retries.backoff", look_again)
    client = connect(line.url, token())
    thread = await client("create_thread")
    dropping = threading.Thread(target=drop)
    dropping.start()
    turn = await client("send", thread.thread_id, "hold")
    dropping.join()
    assert turn.text == "hold "
    assert len(await client("list_runs", thread.thread_id)) == 1


async def test_an_answer_that_takes_too_long_is_not_waited_for(connect, line, served, token):
    client = connect(line.url, token(), turn_timeout=0.3)
    thread = await client("create_thread")
    with pytest.raises(TimedOut):
        await client("send", thread.thread_id, "hold")
    await to_thread.run_sync(served.let_go)
    (run,) = await client("list_runs", thread.thread_id)
    assert (await client("wait", thread.thread_id, run.run_id)).text == "hold "


async def test_a_thread_whose_deletion_was_not_heard_of_is_deleted(connect, line, token):
    client = connect(line.url, token())
    thread = await client("create_thread")
    line.cut_after += [(b"HTTP/1.1 204", 1)]
    assert await client("delete_thread", thread.thread_id) is None


async def test_a_server_that_does_not_come_back_is_given_up(connect, line, token):
    client = connect(line.url, token(), reconnect_seconds=0.3)
    thread = await client("create_thread")
    run = await client("start", thread.thread_id, "Hello")
    line.is_dead = True
    line.cut_after += [(b"HTTP/", 1)] * 100
    with pytest.raises(ServerUnreachable) as caught:
        await client("follow", thread.thread_id, run.run_id)
    assert caught.value.code == "unreachable"
    assert line.connections > 3


async def test_a_stream_that_ends_too_early_is_asked_for_again(connect, script):
    answers = [event(1), event(1) + event(2), b": still here\n\n", END]
    server = script(lambda _: (200, STREAM, answers.pop(0)))
    events = await connect(server.url)("follow", NOWHERE, NOWHERE)
    assert numbers(events) == [1, 2, 3]
    assert [asked.headers["last-event-id"] for asked in server.asked] == ["0", "1", "2", "2"]


async def test_an_event_that_is_missing_is_asked_for(connect, script):
    answers = [event(1) + END, event(2) + END]
    server = script(lambda _: (200, STREAM, answers.pop(0)))
    assert numbers(await connect(server.url)("follow", NOWHERE, NOWHERE)) == [1, 2, 3]


async def test_a_server_that_only_ever_says_hello_is_given_up(connect, script):
    server = script(lambda _: (200, STREAM, b": still here\n\n"))
    with pytest.raises(ServerUnreachable):
        await connect(server.url, reconnect_seconds=0.2)("follow", NOWHERE, NOWHERE)


async def test_a_late_sign_of_life_counts(connect, script, monkeypatch):
    monkeypatch.setattr("agentflow_server.client.following._FIRST_SIGN_SECONDS", 0.0)
    answers = [b": still here\n\n"] * 5 + [event(1) + event(2) + END]
    server = script(lambda _: (200, STREAM, answers.pop(0)))
    client = connect(server.url, reconnect_seconds=0.2)
    assert numbers(await client("follow", NOWHERE, NOWHERE)) == [1, 2, 3]


async def test_a_server_that_is_busy_is_asked_again_when_it_says_so(connect, script, json_answer):
    answers = [
        json_answer({}, 503, **{"Retry-After": "0"}),
        (200, STREAM, event(1) + event(2) + END),
    ]
    server = script(lambda _: answers.pop(0))
    assert numbers(await connect(server.url)("follow", NOWHERE, NOWHERE)) == [1, 2, 3]
    busy = script(lambda _: json_answer({}, 503, **{"Retry-After": "30"}))
    with pytest.raises(ServerFailed):
        await connect(busy.url, reconnect_seconds=5)("follow", NOWHERE, NOWHERE)
    assert len(busy.asked) == 1


async def test_what_will_not_pass_by_waiting_is_raised_at_once(connect, script, json_answer):
    for answer, error in (
        (json_answer({"code": "invalid_request"}, 422), InvalidRequest),
        (json_answer({}), UnexpectedAnswer),
        ((200, STREAM, b"id: 1\ndata: no json\n\n"), UnexpectedAnswer),
        ((200, STREAM, b"id: x\ndata: {}\n\n"), UnexpectedAnswer),
    ):
        server = script(lambda _, answer=answer: answer)
        with pytest.raises(error):
            await connect(server.url)("follow", NOWHERE, NOWHERE)
        assert len(server.asked) == 1


async def test_a_run_that_never_ends_does_not_keep_who_waits_for_an_hour(connect, script):
    server = script(lambda _: (200, STREAM, event(1)))
    client = connect(server.url, reconnect_seconds=0.2)
    with pytest.raises(ServerUnreachable):
        await client("wait", NOWHERE, NOWHERE)


def test_leaving_a_stream_leaves_its_run_alone(line, served, token):
    with AgentflowClient(line.url, token()) as client:
        thread = client.create_thread()
        for event in client.stream(thread.thread_id, "one then two"):
            if event.type == "message.delta":
                break
        served.let_go()
        assert client.wait(thread.thread_id, event.run_id).text == "one then two "


async def test_a_task_that_is_cancelled_leaves_its_stream(served, token):
    async with AsyncAgentflowClient(served.url, token()) as client:
        thread = await client.create_thread()
        run = await client.start(thread.thread_id, "one then two")
        begun = asyncio.Event()

        async def watch():
            async for _ in client.follow(thread.thread_id, run.run_id):
                begun.set()

        task = asyncio.create_task(watch())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await to_thread.run_sync(served.let_go)
        assert (await client.wait(thread.thread_id, run.run_id)).text == "one then two "


@pytest.mark.parametrize(("action", "kept"), [("cancel", "one "), ("rollback", "")])
def test_of_a_run_that_was_stopped_there_is_what_was_kept(served, token, action, kept):
    with AgentflowClient(served.url, token()) as client:
        thread_id = client.create_thread().thread_id
        for event in client.stream(thread_id, "Hello", agent="stuck"):
            if event.type == "message.delta":
                client.cancel_run(thread_id, event.run_id, action=action)
        turn = client.wait(thread_id, event.run_id)
        assert (event.type, turn.status, turn.text) == ("run.cancelled", "cancelled", kept)


def test_events_are_read_however_their_bytes_arrive():
    text = (
        b": hello\n\nid: 1\r\nevent: a\r\ndata: x\r\ndata: y\r\n\r\n"
        b"data:no space\n\nretry: 5\n\nid: 9\ndata: half"
    )
    for size in (1, 3, 7, len(text)):
        parser = EventParser()
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        found = [raw for chunk in chunks for raw in parser.feed(chunk)]
        assert [(raw.id, raw.type, raw.data) for raw in found] == [
            ("1", "a", b"x\ny"),
            ("", "", b"no space"),
        ]


def test_an_event_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("agentflow_server.client.sse.MAX_EVENT_BYTES", 100)
    parser = EventParser()
    assert list(parser.feed(b"data: " + b"x" * 90)) == []
    with pytest.raises(UnexpectedAnswer):
        list(parser.feed(b"more" * 3))
