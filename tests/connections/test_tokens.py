"""Tokens for the server itself: asked for once, renewed early, and never believed unseen."""

import asyncio
import json
import threading
from functools import partial
from typing import Any

import pytest

from agentflow_server import ConnectionUnavailable, connection, connection_sync
from agentflow_server.connections import tokens

BASIC = "Basic b3VyJTNBaWQ6Y2FuYXJ5LVprM3ZKOXFYdzJMclQ4c1liTjVtSGM3UA=="


async def refused(config: Any, name: str = "billing", **options: Any) -> ConnectionUnavailable:
    with pytest.raises(ConnectionUnavailable) as caught:
        await connection(config, name, **options)
    assert caught.value.__cause__ is None
    return caught.value


async def test_a_token_is_asked_for_as_the_protocol_says(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    extra = {"audience": "https://api.example.com", "extra": {"tenant": "acme"}}
    config = await lend(billing={**billing, **extra})
    assert await connection(config, "billing") == f"{canary}-1"
    (request,) = provider.at("/token")
    assert request.method == "POST"
    assert request.headers["Authorization"] == BASIC  # RFC 6749 section 2.3.1, with the colon
    assert request.form == {
        "grant_type": "client_credentials",
        "scope": "invoices:read",
        "audience": "https://api.example.com",
        "tenant": "acme",
    }


async def test_the_secret_may_go_into_the_form(lend: Any, billing: Any, provider: Any) -> None:
    method = {"token_endpoint_auth_method": "client_secret_post", "scopes": []}
    resource = {"resource": "https://api.example.com/v1"}
    await connection(await lend(billing={**billing, **method, **resource}), "billing")
    (request,) = provider.at("/token")
    assert "Authorization" not in request.headers
    assert request.form == {
        "grant_type": "client_credentials",
        "client_id": "our:id",
        "client_secret": billing["client_secret"],
        "resource": "https://api.example.com/v1",
    }


async def test_the_issuer_is_enough_where_it_publishes_its_endpoint(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    issuer = f"{provider.url}/realms/main"
    metadata = {"issuer": issuer, "token_endpoint": f"{provider.url}/token"}
    provider.says("/.well-known/oauth-authorization-server/realms/main", metadata)
    del billing["token_url"]
    config = await lend(billing={**billing, "issuer": issuer})
    assert await connection(config, "billing") == f"{canary}-1"
    assert await connection(config, "billing", scopes=["other"]) == f"{canary}-2"
    assert len(provider.asked) == 4  # its metadata once


@pytest.mark.parametrize("metadata", [{"issuer": "https://evil.example.com"}, {}, []])
async def test_an_issuer_that_is_another_is_not_believed(
    lend: Any, billing: Any, provider: Any, metadata: Any
) -> None:
    provider.says("/.well-known/openid-configuration", metadata)
    del billing["token_url"]
    config = await lend(billing={**billing, "issuer": provider.url})
    assert (await refused(config)).reason == "unreachable"
    assert not provider.at("/token")


async def test_an_issuer_without_an_endpoint_gives_no_token(
    lend: Any, billing: Any, provider: Any
) -> None:
    provider.says("/.well-known/openid-configuration", {"issuer": provider.url})
    del billing["token_url"]
    assert (await refused(await lend(billing={**billing, "issuer": provider.url}))).reason == (
        "unreachable"
    )


async def test_fifty_that_need_a_token_at_once_ask_once(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    config = await lend(billing=billing)
    given = await asyncio.gather(*(connection(config, "billing") for _ in range(50)))
    assert set(given) == {f"{canary}-1"}
    assert len(provider.at("/token")) == 1


async def test_threads_and_other_event_loops_share_the_token(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    config = await lend(billing=billing)

    def in_a_loop_of_its_own() -> str:
        return asyncio.run(connection(config, "billing"))

    given = await asyncio.gather(
        *(asyncio.to_thread(connection_sync, config, "billing") for _ in range(5)),
        *(asyncio.to_thread(in_a_loop_of_its_own) for _ in range(5)),
    )
    assert set(given) == {f"{canary}-1"}
    assert len(provider.at("/token")) == 1
    assert await asyncio.to_thread(connection_sync, config, "billing") == f"{canary}-1"


async def test_whoever_gives_up_does_not_take_the_token_from_the_others(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()
    grant = provider.routes["/token"]

    def slowly(request: Any) -> Any:
        is_asked.set()
        may_answer.wait(30)
        return grant(request)

    provider.routes["/token"] = slowly
    config = await lend(billing=billing)
    first = asyncio.create_task(connection(config, "billing"))
    await asyncio.to_thread(is_asked.wait, 30)
    second = asyncio.create_task(connection(config, "billing"))
    first.cancel()
    await asyncio.wait({first})
    may_answer.set()
    assert await second == f"{canary}-1"
    assert len(provider.at("/token")) == 1


async def test_the_synchronous_form_does_not_block_the_event_loop_for_ever(
    lend: Any, billing: Any
) -> None:
    config = await lend(billing=billing)
    with pytest.raises(RuntimeError, match="await the other one"):
        connection_sync(config, "billing")


async def test_each_set_of_scopes_has_its_token(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    config = await lend(billing=billing)
    assert await connection(config, "billing", scopes=["b", "a", "b"]) == f"{canary}-1"
    assert await connection(config, "billing", scopes=["a", "b"]) == f"{canary}-1"
    assert await connection(config, "billing", scopes=[]) == f"{canary}-2"
    assert [request.form.get("scope") for request in provider.at("/token")] == ["a b", None]
    for wrong in ("invoices", ["in voices"], ["a\n"]):
        with pytest.raises(ValueError, match="list of scopes"):
            await connection(config, "billing", scopes=wrong)


async def test_scopes_that_are_made_up_do_not_fill_the_memory(lend: Any, billing: Any) -> None:
    config = await lend(billing=billing)
    for number in range(70):
        await connection(config, "billing", scopes=[f"s{number}"])
    source = config["opened"].find("billing").source
    assert len(source._entries) == 64


async def test_a_token_is_renewed_before_it_ends(
    lend: Any, billing: Any, clock: Any, canary: str
) -> None:
    config = await lend(billing=billing)
    assert await connection(config, "billing") == f"{canary}-1"
    clock.now += 539
    assert await connection(config, "billing") == f"{canary}-1"
    clock.now += 2
    assert await connection(config, "billing") == f"{canary}-2"


async def test_a_token_is_good_to_its_end_while_no_other_can_be_had(
    lend: Any, billing: Any, provider: Any, clock: Any, canary: str
) -> None:
    config = await lend(billing=billing)
    await connection(config, "billing")
    provider.says("/token", {}, status=503)
    clock.now += 590
    assert await connection(config, "billing") == f"{canary}-1"
    clock.now += 9
    assert (await refused(config)).reason == "unreachable"


@pytest.mark.parametrize(
    ("expires_in", "lives"), [(None, 300), ("3600", 3600), (10**12, 86_400), (0.5, 0.5)]
)
async def test_how_long_a_token_lives_may_be_said_oddly_or_not_at_all(
    lend: Any, billing: Any, provider: Any, clock: Any, canary: str, expires_in: Any, lives: float
) -> None:
    provider.grants(expires_in=expires_in)
    config = await lend(billing=billing)
    assert await connection(config, "billing") == f"{canary}-1"
    source = config["opened"].find("billing").source
    (entry,) = source._entries.values()
    assert entry.token.expires_at - clock.now == lives


async def test_a_token_that_ends_at_once_is_used_once(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    provider.grants(expires_in=0)
    config = await lend(billing=billing)
    assert await connection(config, "billing") == f"{canary}-1"
    assert await connection(config, "billing") == f"{canary}-2"


HOSTILE = "\x1b[2J canary-Zk3vJ9qXw2LrT8sYbN5mHc7P <script>"


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (400, {"error": "invalid_client", "error_description": HOSTILE}, "refused"),
        (401, HOSTILE.encode(), "refused"),
        (403, {}, "refused"),
        (429, {}, "unreachable"),
        (500, HOSTILE.encode(), "unreachable"),
        (302, {}, "unreachable"),
        (200, b"<!doctype html><title>Log in</title>", "unreadable"),
        (200, b"[" * 10_000, "unreadable"),
        (200, b"", "unreadable"),
        (200, [], "unreadable"),
        (200, {"error": HOSTILE}, "unreadable"),
        (200, {"access_token": "abc"}, "unreadable"),
        (200, {"access_token": "abc", "token_type": "DPoP"}, "unreadable"),
        (200, {"access_token": "a b\r\nc", "token_type": "Bearer"}, "unreadable"),
        (200, {"access_token": "", "token_type": "Bearer"}, "unreadable"),
        (200, {"access_token": 5, "token_type": "Bearer"}, "unreadable"),
        (200, {"access_token": "a", "token_type": "bearer", "expires_in": True}, "unreadable"),
        (200, {"access_token": "a", "token_type": "bearer", "expires_in": -1}, "unreadable"),
        (200, {"access_token": "a", "token_type": "bearer", "expires_in": "soon"}, "unreadable"),
        (200, b'{"access_token": "' + b"a" * 50_000_000 + b'"}', "unreachable"),
    ],
)
async def test_what_a_provider_says_wrong_has_a_clear_end(
    lend: Any,
    billing: Any,
    provider: Any,
    caplog: pytest.LogCaptureFixture,
    status: int,
    answer: Any,
    reason: str,
) -> None:
    provider.says("/token", answer, status=status)
    error = await refused(await lend(billing=billing))
    assert (error.reason, error.code) == (reason, "connection_unavailable")
    assert str(error) == f"connection 'billing': {error.REASONS[reason]}"
    (line,) = caplog.messages
    assert "connection billing: " in line
    assert "canary" not in line
    assert line.isprintable()


async def test_an_answer_that_breaks_http_is_not_repeated(
    lend: Any, billing: Any, provider: Any, canary: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider.says("/token", {}, **{"X Odd": canary})
    assert (await refused(await lend(billing=billing))).reason == "unreachable"
    assert caplog.messages == ["connection billing: the authorization server does not speak HTTP"]


async def test_a_provider_that_is_not_there_has_a_clear_end(lend: Any, billing: Any) -> None:
    config = await lend(billing={**billing, "token_url": "http://127.0.0.1:9/token"})
    assert (await refused(config)).reason == "unreachable"


async def test_a_provider_that_is_down_is_not_stormed(
    lend: Any, billing: Any, provider: Any, clock: Any, canary: str
) -> None:
    grant = provider.routes["/token"]
    provider.says("/token", {}, status=503)
    config = await lend(billing=billing)
    asked = []
    for _ in range(120):
        assert (await refused(config)).reason == "unreachable"
        asked.append(len(provider.at("/token")))
        clock.now += 1
    # After 1, 2, 4, 8, 16 and then every 30 seconds.
    assert [asked.index(number) for number in range(1, 9)] == [0, 1, 3, 7, 15, 31, 61, 91]
    provider.routes["/token"] = grant
    clock.now += 30
    assert await connection(config, "billing") == f"{canary}-{asked[-1] + 1}"


async def test_what_one_tool_may_not_have_is_no_harm_to_others(
    lend: Any, billing: Any, provider: Any, canary: str
) -> None:
    grant = provider.routes["/token"]

    def choosy(request: Any) -> Any:
        wrong = json.dumps({"error": "invalid_scope"}).encode()
        return (400, {}, wrong) if request.form["scope"] == "admin" else grant(request)

    provider.routes["/token"] = choosy
    config = await lend(billing=billing)
    assert (await refused(config, scopes=["admin"])).reason == "refused"
    assert (await connection(config, "billing")).startswith(canary)


async def test_when_the_server_stops_nobody_waits_for_a_token(
    lend: Any, billing: Any, provider: Any
) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def silent(request: Any) -> Any:
        is_asked.set()
        may_answer.wait(30)
        return 503, {}, b""

    provider.routes["/token"] = silent
    config = await lend(billing=billing)
    waiting = asyncio.create_task(refused(config))
    await asyncio.to_thread(is_asked.wait, 30)
    await config["opened"].close()
    may_answer.set()
    assert (await waiting).reason == "closing"
    assert (await refused(config)).reason == "closing"
    with pytest.raises(ConnectionUnavailable, match="stopping"):
        await asyncio.to_thread(connection_sync, config, "billing")


async def test_a_thread_does_not_wait_for_ever_for_an_event_loop(
    lend: Any, billing: Any, provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()

    def silent(request: Any) -> Any:
        may_answer.wait(30)
        return 503, {}, b""

    monkeypatch.setattr(tokens, "PATIENCE_SECONDS", 0.01)
    provider.routes["/token"] = silent
    config = await lend(billing=billing)

    def in_a_loop_of_its_own() -> str:
        return asyncio.run(connection(config, "billing"))

    for ask in (partial(connection_sync, config, "billing"), in_a_loop_of_its_own):
        with pytest.raises(ConnectionUnavailable):
            await asyncio.to_thread(ask)
    may_answer.set()


async def test_nothing_shows_a_secret(lend: Any, billing: Any, canary: str) -> None:
    config = await lend(
        billing=billing,
        crm={"type": "api_key", "value": canary, "base_url": "https://crm.example.com"},
    )
    await connection(config, "billing")
    for name in ("billing", "crm"):
        found = config["opened"].find(name)
        shown = f"{found!r} {found.source!r} {vars(found.source) if name == 'billing' else ''}"
        assert canary not in shown
