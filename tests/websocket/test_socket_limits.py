"""R78: how long a socket stays, how much it may say, how many there may be, and how it ends."""

import asyncio
import logging
import os
import socket as sockets
import time

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from agentflow_server.models import Revocation


async def test_r78_a_socket_is_closed_when_its_token_expires(serve):
    server = await serve()
    expires_at = time.time() + 0.5
    line = await server.enter(await server.new_thread(), claims={"exp": expires_at})
    assert await line.closing() == (4401, "token expired")
    assert time.time() >= expires_at


async def test_r78_a_socket_that_a_ticket_opened_ends_with_the_token_of_the_ticket(serve):
    server = await serve()
    thread_id = await server.new_thread()
    expires_at = time.time() + 1
    line = await server.dial(thread_id)
    ticket = await server.new_ticket(exp=expires_at)
    assert (await line.ask("auth", ticket=ticket))["type"] == "ready"
    assert await line.closing() == (4401, "token expired")
    assert time.time() >= expires_at


async def test_r78_an_expiry_ends_a_socket_in_the_middle_of_a_run_and_not_the_run(serve, until):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id, claims={"exp": time.time() + 0.7})
    run_id = (await line.ask("message", content="wait"))["run"]["run_id"]
    assert await line.closing() == (4401, "token expired")
    server.agent.gate.set()
    other = await server.enter(thread_id)
    await other.ask("follow", run_id=run_id)
    assert (await other.events("run.completed"))[-1]["data"]["status"] == "success"


async def _revoke(server, **what):
    now = time.time()
    facts = {"issuer": None, "token_id": None, "user_id": None, "at": now, "expires_at": now + 600}
    await server.app.state.runner.store.add_revocation(Revocation(**(facts | what)))


@pytest.mark.parametrize("what", [{"token_id": "t-1"}, {"user_id": "alice"}])
async def test_r78_a_revoked_caller_is_closed(serve, what):
    server = await serve()
    revocations = server.app._parts.guards.revocations
    server.rule(recheck_every=0.02)
    claims = {"jti": "t-1", "iat": time.time() - 60}
    line = await server.enter(await server.new_thread(), claims=claims)
    stays = await server.enter(await server.new_thread("bob"), "bob")
    await _revoke(server, **what)
    await revocations._load()
    assert await line.closing() == (4401, "revoked")
    assert (await stays.ask("ping"))["type"] == "pong"


async def test_r78_the_next_command_of_a_revoked_caller_is_his_last(serve, until):
    server = await serve()
    revocations = server.app._parts.guards.revocations
    thread_id = await server.new_thread()
    line = await server.enter(thread_id, claims={"jti": "t-1", "iat": time.time() - 60})
    await _revoke(server, token_id="t-1")
    await revocations._load()
    await line.say("message", content="hi")
    assert await line.closing() == (4401, "revoked")
    runs = await server.app.state.runner.store.list_runs("alice", thread_id, limit=9, cursor=None)
    assert runs.data == []


def test_r78_revocation_is_looked_at_often_enough(make_app):
    rules = make_app().state.socket_rules
    assert rules.recheck_every + 30 <= 60, "the list is read again at an age of 30 s"


async def test_r78_a_revoked_api_key_closes_the_socket_it_opened(serve):
    from datetime import UTC, datetime

    from agentflow_server.auth.api_key import make_api_key

    server = await serve(auth="api_key")
    store = server.app.state.runner.store
    text, key, digest = make_api_key("alice", created_at=datetime.now(UTC))
    await store.add_api_key(key, digest)
    server.rule(recheck_every=0.02)
    headers = {"Authorization": f"Bearer {text}"}
    thread_id = (await server.http.post("/threads", headers=headers)).json()["thread_id"]
    by_header = await server.enter(thread_id, "", additional_headers={"X-API-Key": text})
    by_frame = await server.dial(thread_id)
    assert (await by_frame.ask("auth", token=text))["type"] == "ready"
    await store.revoke_api_key(key.key_id, time.time())
    assert await by_header.closing() == (4401, "revoked")
    assert await by_frame.closing() == (4401, "revoked")


@pytest.mark.parametrize("size", [1001, 10_000_000])
async def test_r78_a_message_over_the_limit_closes_with_1009(serve, size):
    server = await serve(limits={"max_body_bytes": 1000})
    line = await server.enter(await server.new_thread())
    await line.connection.send("x" * size)
    assert (await line.closing())[0] == 1009


async def test_r78_the_limit_counts_bytes_and_fragments_together(serve):
    server = await serve(limits={"max_body_bytes": 1000})
    line = await server.enter(await server.new_thread())
    await line.connection.send(["x" * 400, "x" * 400, "x" * 400])
    assert (await line.closing())[0] == 1009
    line = await server.enter(await server.new_thread())
    await line.connection.send("é" * 501)
    assert (await line.closing())[0] == 1009


async def test_r78_binary_frames_are_refused(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    await line.connection.send(b'{"type": "ping"}')
    assert await line.closing() == (1003, "expected a text frame")
    line = await server.dial(await server.new_thread())
    await line.connection.send(b"\x00\xff")
    assert (await line.closing())[0] == 1003


async def test_r78_a_silent_socket_is_closed_even_while_it_listens(serve):
    server = await serve(limits={"websocket_idle": 0.3})
    line = await server.enter(await server.new_thread())
    await line.ask("message", content="wait")
    assert await line.closing() == (4408, "nothing was sent for 0.3 seconds")


async def test_r78_a_ping_keeps_it_open(serve):
    server = await serve(limits={"websocket_idle": 1})
    line = await server.enter(await server.new_thread())
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        assert (await line.ask("ping"))["type"] == "pong"
    assert (await line.closing())[0] == 4408


async def test_r78_so_many_sockets_for_each_caller(serve, token, until):
    server = await serve(limits={"websockets_per_principal": 3})
    thread_id = await server.new_thread()
    open_ones = [await server.enter(thread_id) for _ in range(3)]
    answer = await server.refusal(thread_id, "alice")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    late = await server.dial(thread_id)
    await late.say("auth", token=token("alice"))
    assert (await late.closing())[0] == 4429
    assert await server.enter(await server.new_thread("bob"), "bob")
    await open_ones[0].connection.close()
    counts = server.app.state.sockets._counts
    await until(lambda: counts["user alice"] == 2)
    assert await server.enter(thread_id)


async def test_r78_two_hundred_at_once_and_not_one_too_many(serve, until):
    server = await serve()
    thread_id = await server.new_thread()
    lines = await asyncio.gather(
        *(server.dial(thread_id, "alice") for _ in range(200)), return_exceptions=True
    )
    refused = [line for line in lines if isinstance(line, BaseException)]
    assert len(refused) == 200 - 32
    assert {error.response.status_code for error in refused} == {429}
    await asyncio.gather(*(o.connection.close() for o in lines if o not in refused))
    await until(lambda: not server.app.state.sockets._counts)
    assert not server.app.state.sockets._ends


async def test_r78_strangers_are_counted_by_their_address(serve):
    server = await serve(auth=None, limits={"websockets_per_principal": 1})
    thread_id = (await server.http.post("/threads")).json()["thread_id"]
    await server.enter(thread_id, "")
    assert (await server.refusal(thread_id)).status_code == 429


async def test_r78_who_does_not_read_is_closed_and_its_run_is_not(serve, until):
    server = await serve()
    server.rule(send_within=0.3)
    thread_id = await server.new_thread()
    narrow = sockets.socket()
    narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", httpx2.URL(server.url).port))
    line = await server.enter(thread_id, sock=narrow, max_queue=1, compression=None)
    run_id = (await line.ask("message", content="flood"))["run"]["run_id"]
    await until(lambda: not server.app.state.sockets._counts)
    other = await server.enter(thread_id)
    server.rule(send_within=30)
    store = server.app.state.runner.store

    async def has_ended():
        return (await store.get_run("alice", thread_id, run_id)).ended_at is not None

    await until(has_ended)
    assert (await store.get_run("alice", thread_id, run_id)).status == "success"
    assert (await other.ask("ping"))["type"] == "pong"
    line.connection.transport.abort()


# Leaving


async def test_a_client_that_is_gone_does_not_stop_its_run(serve, until):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    run_id = (await line.ask("message", content="wait"))["run"]["run_id"]
    await line.events("message.delta")
    line.connection.transport.abort()
    await until(lambda: not server.app.state.sockets._counts)
    server.agent.gate.set()
    other = await server.enter(thread_id)
    await other.ask("follow", run_id=run_id)
    assert (await other.events("run.completed"))[-1]["data"]["status"] == "success"
    assert server.agent.stopped == []


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_client_that_is_gone_stops_the_run_that_was_to_be_stopped(serve, until, way):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    stays = (await line.ask("message", content="hi", on_disconnect="cancel"))["run"]["run_id"]
    await line.events("run.completed")
    goes = (await line.ask("message", content="wait", on_disconnect="cancel"))["run"]["run_id"]
    await line.events("message.delta")
    if way == "close":
        await line.connection.close()
    else:
        line.connection.transport.abort()
    await until(lambda: server.agent.stopped)
    store = server.app.state.runner.store

    async def is_cancelled():
        return (await store.get_run("alice", thread_id, goes)).status == "cancelled"

    await until(is_cancelled)
    assert (await store.get_run("alice", thread_id, stays)).status == "success"


async def test_a_resumed_run_is_stopped_as_well(serve, until):
    source = """
import asyncio
from agentflow_server import ask
stopped = []
async def app(messages, config):
    await ask(config, "sure?")
    yield "on "
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        stopped.append(1)
        raise
"""
    server = await serve(source)
    line = await server.enter(await server.new_thread())
    run_id = (await line.ask("message", content="go"))["run"]["run_id"]
    await line.events("interrupt")
    await line.ask("resume", run_id=run_id, value=1, on_disconnect="cancel")
    await line.events("message.delta")
    await line.connection.close()
    await until(lambda: server.agent.stopped)
    assert server.agent.stopped == [1]


async def test_a_server_that_stops_closes_with_1012_and_lets_runs_finish(serve):
    server = await serve(runs={"shutdown_grace": 10})
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    idle = await server.enter(thread_id)
    await line.ask("message", content="wait", on_disconnect="cancel")
    await line.events("message.delta")
    stopping = asyncio.create_task(server.stop())
    assert (await line.closing())[0] == 1012
    assert (await idle.closing())[0] == 1012
    assert server.agent.stopped == [], "it was not the client who left"
    server.agent.gate.set()
    await stopping
    assert server.agent.stopped == []


async def test_closing_the_sockets_is_prompt_and_refuses_new_ones(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    server.app.state.sockets.close()
    code, reason = await line.closing()
    assert (code, "stopping" in reason) == (1012, True)
    assert (await server.refusal(thread_id, "alice")).status_code == 503


# The edge


async def test_a_handshake_has_an_id_and_a_line_in_the_access_log(serve, caplog):
    caplog.set_level(logging.INFO, "agentflow_server.access")
    server = await serve()
    thread_id = await server.new_thread()
    headers = {"X-Request-Id": "mine-1"}
    answer = await server.refusal(thread_id, additional_headers=headers | {"Origin": "null"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["cache-control"] == "no-store"
    line = await server.enter(thread_id)
    assert len(line.connection.response.headers["x-request-id"]) == 32
    await line.connection.send(b"")
    assert (await line.closing())[0] == 1003
    await server.stop()
    found = [r for r in caplog.records if getattr(r, "method", "") == "WEBSOCKET"]
    assert [(r.status, r.close_code) for r in found] == [(403, None), (101, 1003)]


async def test_headers_have_a_bound_here_as_well(serve):
    server = await serve(limits={"max_header_bytes": 4096})
    answer = await server.refusal("x", additional_headers={"X-Long": "x" * 5000})
    assert answer.status_code == 431


async def test_a_busy_server_takes_no_more_sockets_and_sockets_make_it_no_busier(serve, as_user):
    server = await serve(limits={"concurrent_requests": 1})
    thread_id = await server.new_thread()
    for _ in range(3):
        await server.enter(thread_id)
    assert (await server.http.get("/threads")).status_code == 401
    async with asyncio.TaskGroup() as group:
        url = f"/threads/{thread_id}/messages"
        sending = server.http.post(url, json={"content": "wait"}, headers=as_user("alice"))
        task = group.create_task(sending)
        async with asyncio.timeout(10):
            while (await server.http.get("/threads")).status_code != 503:
                await asyncio.sleep(0.01)
        assert (await server.refusal(thread_id, "alice")).status_code == 503
        server.agent.gate.set()
    assert task.result().status_code == 200


async def test_an_unknown_path_is_refused(serve):
    server = await serve()
    assert (await server.refusal("x/y")).status_code == 403


async def test_a_flood_of_garbage_is_answered_and_harms_nobody(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line, other = await server.enter(thread_id), await server.enter(thread_id)
    for _ in range(200):
        await line.connection.send(os.urandom(60).hex())
    for _ in range(200):
        assert (await line.hear())["code"] == "invalid_request"
    assert (await other.ask("ping"))["type"] == "pong"


async def test_bytes_that_are_no_text_close_with_1007(serve):
    server = await serve()
    line = await server.enter(await server.new_thread())
    await line.connection.send(b"\xff\xfe", text=True)
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(line.connection.recv(), 10)
    assert closed.value.rcvd.code == 1007


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_refusal_reaches_also_a_server_that_can_only_close(make_app, extensions):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    app = make_app()
    scope = {"type": "websocket", "path": "/threads/x/ws", "scheme": "ws", "extensions": extensions,
             "query_string": b"token=x", "headers": [], "subprotocols": []}  # fmt: skip
    try:
        await app(scope, receive, send)
    finally:
        app._portal.close()
    kinds = [message["type"] for message in sent]
    if extensions:
        assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]
    else:
        assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_bug_of_ours_before_the_handshake_is_a_500(serve, monkeypatch, caplog):
    server = await serve()
    thread_id = await server.new_thread()

    async def bug(*_, **__):
        raise ZeroDivisionError("the secret of the house")

    monkeypatch.setattr(server.app.state.runner.store, "get_thread", bug)
    answer = await server.refusal(thread_id, "alice")
    assert answer.status_code == 500
    assert b"secret" not in answer.body
    assert "the secret of the house" in caplog.text
