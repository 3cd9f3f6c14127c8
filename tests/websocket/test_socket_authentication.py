"""R77: nobody hears anything before he is known, from whichever page and by whichever way."""

import asyncio
import json
import logging
import time

import pytest
from fastapi.routing import APIWebSocketRoute
from websockets.exceptions import ConnectionClosed

from agentflow_server.errors import NotAuthenticated
from agentflow_server.models import Principal
from agentflow_server.web import tickets
from agentflow_server.web.tickets import TICKET_SECONDS, MemoryTickets, Tickets

ROLES = {"roles": {"reader": ["runs:read"], "writer": ["threads:write", "runs:read"]}}


async def test_r77_the_authorization_header_counts_as_over_http(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.enter(thread_id)
    assert (await line.ask("message", content="hi", id="1"))["type"] == "accepted"
    assert (await line.events("run.completed"))[-1]["data"]["status"] == "success"


async def test_r77_the_only_websocket_is_the_one_that_is_tested_here(make_app):
    found = []
    for route in make_app().routes:
        found += route.original_router.routes if hasattr(route, "original_router") else [route]
    sockets = [route.path for route in found if isinstance(route, APIWebSocketRoute)]
    assert sockets == ["/threads/{thread_id}/ws"]


@pytest.mark.parametrize("value", ["Bearer x.y.z", "Bearer", "Basic eDp5", "Bearer a, Bearer b"])
async def test_r77_a_bad_header_is_refused_before_the_handshake(serve, value):
    server = await serve()
    answer = await server.refusal("x", additional_headers={"Authorization": value})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["x-request-id"]
    assert json.loads(answer.body)["code"] == "not_authenticated"


async def test_r77_a_first_frame_with_a_token_authenticates(serve, token):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.dial(thread_id)
    assert await line.ask("auth", token=token("alice")) == {
        "type": "ready",
        "thread_id": thread_id,
    }
    await line.say("message", content="hi")
    assert (await line.hear())["run"]["thread_id"] == thread_id


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "message", "content": "hi"}',
        '{"type": "ping"}',
        '{"type": "auth"}',
        '{"type": "auth", "token": ""}',
        '{"type": "auth", "token": "x.y.z"}',
        '{"type": "auth", "token": "x.y.z", "token": "x.y.z"}',
        '{"type": "auth", "token": null, "ticket": null}',
        '{"type": "auth", "ticket": "AAAA"}',
        '{"type": "auth", "ticket": ""}',
        '{"type": "auth", "token": "é\\r\\nX-Evil: 1"}',
        '{"type": "auth", "token": 7}',
        '{"type": "hello", "token": "x"}',
        "[]",
        "",
        "{",
        "\x00",
    ],
)
async def test_r77_nothing_is_said_to_whoever_begins_with_anything_else(serve, frame):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.dial(thread_id)
    await line.connection.send(frame)
    with pytest.raises(ConnectionClosed) as closed:
        await line.connection.recv()
    assert closed.value.rcvd.code == 4401
    assert closed.value.rcvd.reason in {"Not authenticated", "Could not validate credentials"}
    runs = await server.app.state.runner.store.list_runs("alice", thread_id, limit=9, cursor=None)
    assert runs.data == []


async def test_r77_a_token_and_a_ticket_together_are_refused(serve, token):
    server = await serve()
    thread_id, ticket = await server.new_thread(), await server.new_ticket()
    line = await server.dial(thread_id)
    await line.say("auth", token=token("alice"), ticket=ticket)
    assert (await line.closing())[0] == 4401
    protocols = ["agentflow", f"ticket.{ticket}", f"ticket.{await server.new_ticket()}"]
    assert (await server.refusal(thread_id, subprotocols=protocols)).status_code == 401
    protocols = ["agentflow", f"ticket.{ticket}"]
    assert (await server.refusal(thread_id, "alice", subprotocols=protocols)).status_code == 401


async def test_r77_an_expired_token_in_a_frame_is_told_so(serve, token):
    server = await serve()
    line = await server.dial(await server.new_thread())
    await line.say("auth", token=token("alice", exp=time.time() - 60))
    assert await line.closing() == (4401, "Token has expired")


async def test_r77_who_says_nothing_is_closed(serve):
    server = await serve()
    server.rule(authenticate_within=0.05)
    line = await server.dial(await server.new_thread())
    assert await line.closing() == (4408, "not authenticated in time")


async def test_r77_silent_strangers_of_one_address_are_bounded(serve):
    server = await serve()
    server.rule(unauthenticated=3)
    thread_id = await server.new_thread()
    waiting = [await server.dial(thread_id) for _ in range(3)]
    answer = await server.refusal(thread_id)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    await server.enter(thread_id)
    for line in waiting:
        await line.connection.close()


async def test_r77_a_huge_first_frame_is_not_read(serve):
    server = await serve()
    line = await server.dial(await server.new_thread())
    await line.say("auth", token="x" * 40_000)
    assert (await line.closing())[0] == 1009


async def test_r77_a_stranger_finds_no_thread(serve, token):
    server = await serve()
    thread_id = await server.new_thread("alice")
    assert (await server.refusal(thread_id, "bob")).status_code == 404
    assert (await server.refusal("no-id", "bob")).status_code == 404
    line = await server.dial(thread_id)
    await line.say("auth", token=token("bob"))
    assert await line.closing() == (4404, "There is no such thread")


async def test_r77_a_missing_scope_is_a_403_or_4403(serve, token):
    server = await serve(authorization=ROLES)
    thread_id = await server.new_thread(roles=["writer"])
    answer = await server.refusal(thread_id, "alice")
    assert (answer.status_code, json.loads(answer.body)["scope"]) == (403, "runs:read")
    line = await server.dial(thread_id)
    await line.say("auth", token=token("alice"))
    assert (await line.closing())[0] == 4403
    assert await server.enter(thread_id, claims={"roles": ["reader"]})
    answer = await server.http.post(
        "/tickets", headers={"Authorization": f"Bearer {token('alice')}"}
    )
    assert answer.status_code == 403


# Origins


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "https://{host}",
     "http://{host}.evil.example", "http://evil@{host}:1", "http://[::1", "", "file://", "{host}"],
)  # fmt: skip
async def test_r77_a_page_of_another_origin_is_refused_before_the_handshake(serve, origin):
    server = await serve()
    host = server.url.removeprefix("http://")
    header = {"Origin": origin.format(host=host)}
    answer = await server.refusal(await server.new_thread(), additional_headers=header)
    assert (answer.status_code, json.loads(answer.body)["code"]) == (403, "forbidden")


async def test_r77_the_servers_own_pages_and_listed_ones_may_connect(serve):
    server = await serve(cors={"allow_origins": ["https://app.example.com"]})
    thread_id = await server.new_thread()
    for origin in (server.url, "https://app.example.com"):
        assert await server.enter(thread_id, origin=origin)
    assert (await server.refusal(thread_id, origin="http://app.example.com")).status_code == 403


async def test_r77_two_origins_are_none(serve):
    server = await serve()
    headers = [("Origin", server.url), ("Origin", server.url)]
    answer = await server.refusal(await server.new_thread(), additional_headers=headers)
    assert answer.status_code == 400  # uvicorn's library is the first to refuse them


async def test_r77_with_a_public_url_the_host_header_says_nothing(serve):
    server = await serve(public_url="https://agents.example.com/base")
    thread_id = await server.new_thread()
    assert (await server.refusal(thread_id, origin=server.url)).status_code == 403
    assert await server.enter(thread_id, origin="https://agents.example.com")


COOKIES = """
from agentflow_server import BaseAuth

class Auth(BaseAuth):
    credential_required = False
    def authenticate(self, request, res, credential):
        if "cookie" in request.headers:
            return {"user_id": request.headers["cookie"].partition("=")[2]}
        return {}

def app(messages, config):
    return "hello " + str(config.get("user_id"))
"""


async def test_r77_any_page_may_connect_where_cors_says_so_but_without_cookies(serve, tmp_path):
    (tmp_path / "cookies.py").write_text(COOKIES)
    server = await serve(
        COOKIES, auth={"method": "custom", "path": "cookies:Auth"}, cors={"allow_origins": ["*"]}
    )
    cookie = {"Cookie": "user=alice"}
    thread_id = (await server.http.post("/threads", headers=cookie)).json()["thread_id"]
    answer = await server.refusal(
        thread_id, origin="https://evil.example", additional_headers=cookie
    )
    assert answer.status_code == 404
    assert await server.enter(thread_id, "", additional_headers=cookie)
    assert await server.enter(thread_id, "", origin=server.url, additional_headers=cookie)


# Nothing in the URL


@pytest.mark.parametrize("name", ["token", "access_token", "ticket", "owner", "x"])
async def test_r77_a_token_in_the_url_is_refused_even_beside_a_good_one(serve, token, name, caplog):
    caplog.set_level(logging.INFO)
    server = await serve()
    value = token("alice")
    answer = await server.refusal(await server.new_thread(), "alice", query=f"?{name}={value}")
    assert answer.status_code == 422
    logged = [r for r in caplog.records if r.name.startswith(("agentflow", "uvicorn"))]
    assert any("/ws" in record.getMessage() for record in logged)
    assert [record for record in logged if value in record.getMessage()] == []
    assert [record for record in logged if record.levelno >= logging.WARNING] == []


# Tickets


async def test_r77_a_ticket_opens_one_socket_by_either_way(serve):
    server = await serve()
    thread_id = await server.new_thread()
    line = await server.dial(
        thread_id, subprotocols=["agentflow", f"ticket.{await server.new_ticket()}"]
    )
    assert line.connection.subprotocol == "agentflow"
    assert (await line.hear())["type"] == "ready"
    line = await server.dial(thread_id, subprotocols=["agentflow"])
    assert (await line.ask("auth", ticket=await server.new_ticket()))["type"] == "ready"


async def test_r77_a_ticket_speaks_for_whoever_asked_for_it(serve):
    server = await serve()
    alices, bobs = await server.new_thread("alice"), await server.new_thread("bob")
    line = await server.dial(alices)
    await line.say("auth", ticket=await server.new_ticket("bob"))
    assert (await line.closing())[0] == 4404
    line = await server.dial(bobs)
    assert (await line.ask("auth", ticket=await server.new_ticket("bob")))["type"] == "ready"
    await line.ask("message", content="hi")
    said = [e for e in await line.events("run.completed") if e["event"] == "message.completed"]
    assert said[0]["data"]["content"] == "bob: hi"


async def test_r77_a_ticket_is_random_short_lived_and_never_kept(serve, token):
    server = await serve()
    headers = {"Authorization": f"Bearer {token('alice')}"}
    answers = [(await server.http.post("/tickets", headers=headers)) for _ in range(5)]
    tickets = {answer.json()["ticket"] for answer in answers}
    assert len(tickets) == 5
    assert all(len(ticket) >= 43 for ticket in tickets), "256 bits in base64url"
    assert answers[0].headers["cache-control"] == "no-store"
    kept = repr(vars(server.app.state.tickets._store))
    assert [ticket for ticket in tickets if ticket in kept] == []
    assert (await server.http.post("/tickets")).status_code == 401


async def test_r77_a_ticket_works_once_however_many_try_at_once(serve):
    server = await serve()
    thread_id, ticket = await server.new_thread(), await server.new_ticket()

    async def attempt():
        line = await server.dial(thread_id)
        try:
            return (await line.ask("auth", ticket=ticket))["type"]
        except ConnectionClosed as closed:
            return closed.rcvd.code

    outcomes = await asyncio.gather(*(attempt() for _ in range(20)))
    assert sorted(map(str, outcomes)) == ["4401"] * 19 + ["ready"]
    answer = await server.refusal(thread_id, subprotocols=["agentflow", f"ticket.{ticket}"])
    assert answer.status_code == 401


async def test_r77_failed_tickets_count_as_failed_credentials(serve):
    server = await serve(rate_limit={"failed_auth": "2/hour"})
    thread_id = await server.new_thread()
    protocols = ["agentflow", "ticket.wrong"]
    answers = [await server.refusal(thread_id, subprotocols=protocols) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]


async def test_r77_an_expired_ticket_is_worth_nothing():
    now = time.time()
    tickets = Tickets(MemoryTickets(), clock=lambda: now)
    issued = await tickets.issue(Principal("alice"))
    assert issued.expires_at.timestamp() == pytest.approx(now + TICKET_SECONDS, abs=0.001)
    assert TICKET_SECONDS <= 60
    now += TICKET_SECONDS
    with pytest.raises(NotAuthenticated):
        await tickets.redeem(issued.ticket)
    now -= TICKET_SECONDS
    with pytest.raises(NotAuthenticated):
        await tickets.redeem(issued.ticket)


async def test_r77_a_ticket_does_not_outlive_its_token():
    now = time.time()
    tickets = Tickets(MemoryTickets(), clock=lambda: now)
    issued = await tickets.issue(Principal("alice", expires_at=now + 5))
    assert issued.expires_at.timestamp() == pytest.approx(now + 5, abs=0.001)


@pytest.mark.parametrize(
    ("method", "expires_in", "lasts"),
    [
        ("introspection", None, tickets.UNASKED_SECONDS),
        ("introspection", 5.0, 5.0),
        ("introspection", 3600.0, tickets.UNASKED_SECONDS),
        ("jwt", 3600.0, 3600.0),
        ("api_key", None, None),
    ],
)
async def test_r77_who_cannot_be_asked_about_again_stays_for_a_minute(method, expires_in, lasts):
    now = 1_800_000_000.0
    issuing = Tickets(MemoryTickets(), clock=lambda: now)
    expires_at = None if expires_in is None else now + expires_in
    issued = await issuing.issue(Principal("alice", method=method, expires_at=expires_at))
    stays_until = (await issuing.redeem(issued.ticket)).expires_at
    assert stays_until == (None if lasts is None else now + lasts)


async def test_r77_a_socket_of_an_opaque_tokens_ticket_ends_and_a_new_ticket_opens_another(
    serve, monkeypatch
):
    server = await serve()
    thread_id = await server.new_thread()
    principal = Principal("alice", method="introspection")
    monkeypatch.setattr(tickets, "UNASKED_SECONDS", 0.5)
    ticket = (await server.app.state.tickets.issue(principal)).ticket
    line = await server.dial(thread_id, subprotocols=["agentflow", f"ticket.{ticket}"])
    assert await line.closing() == (4401, "token expired")
    monkeypatch.undo()
    ticket = (await server.app.state.tickets.issue(principal)).ticket
    line = await server.dial(thread_id, subprotocols=["agentflow", f"ticket.{ticket}"])
    assert (await line.hear())["type"] == "ready"


async def test_unused_tickets_are_bounded_and_forgotten(serve, as_user, monkeypatch):
    from agentflow_server.web import tickets as module

    server = await serve()
    for _ in range(module.TICKETS_PER_CALLER):
        await server.new_ticket()
    assert (await server.http.post("/tickets", headers=as_user("alice"))).status_code == 429
    await server.new_ticket("bob")
    store = server.app.state.tickets._store
    real = time.time
    monkeypatch.setattr(module.time, "time", lambda: real() + TICKET_SECONDS + 1)
    await store.put(b"digest", Principal("alice"), real() + 600)
    assert len(store._kept) == 1
    assert dict(store._counts) == {"alice": 1}


async def test_mode_none_asks_for_nothing_and_still_refuses_other_pages(serve):
    server = await serve(auth=None)
    thread_id = (await server.http.post("/threads")).json()["thread_id"]
    assert await server.enter(thread_id, "")
    answer = await server.refusal(thread_id, origin="https://evil.example")
    assert answer.status_code == 403


REFUSING = """
from fastapi import HTTPException
from agentflow_server import BaseAuth

class Auth(BaseAuth):
    def authenticate(self, res, credential):
        if credential.credentials == "paused":
            raise HTTPException(402, "Your plan has ended: " + "é" * 200)
        if credential.credentials == "broken":
            raise RuntimeError("no database")
        res.set_cookie("seen", "yes")
        return {"user_id": credential.credentials}

def app(messages, config):
    return "x"
"""


async def test_what_a_custom_backend_says_reaches_the_client(serve, tmp_path):
    (tmp_path / "refusing.py").write_text(REFUSING)
    server = await serve(REFUSING, auth={"method": "custom", "path": "refusing:Auth"})
    headers = {"Authorization": "Bearer alice"}
    thread_id = (await server.http.post("/threads", headers=headers)).json()["thread_id"]
    line = await server.enter(thread_id, "", additional_headers=headers)
    assert line.connection.response.headers["set-cookie"].startswith("seen=yes")
    paused = {"Authorization": "Bearer paused"}
    assert (await server.refusal(thread_id, additional_headers=paused)).status_code == 402
    line = await server.dial(thread_id)
    await line.say("auth", token="paused")
    code, reason = await line.closing()
    assert (code, reason[:20], len(reason.encode()) <= 123) == (4402, "Your plan has ended:", True)
    line = await server.dial(thread_id)
    await line.say("auth", token="broken")
    assert await line.closing() == (1013, "Authentication is temporarily unavailable")
