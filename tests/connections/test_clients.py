"""Clients that log in at the connection's own API, and show nobody else anything."""

import asyncio
import base64
import logging
from typing import Any

import httpx2
import pytest

from agentflow_server import (
    ConnectionUnavailable,
    connection,
    connection_client,
    connection_client_sync,
    connection_sync,
)

WHERE = [
    ({"type": "api_key"}, "X-API-Key"),
    ({"type": "api_key", "in": "header", "name": "Authorization"}, "Authorization"),
    ({"type": "api_key", "in": "query", "name": "api_key"}, "query"),
    ({"type": "api_key", "in": "cookie", "name": "session"}, "Cookie"),
    ({"type": "basic", "username": "bob"}, "Authorization"),
    ({"type": "bearer"}, "Authorization"),
]
KEYS = {"api_key": "value", "basic": "password", "bearer": "token"}


def complete(settings: dict[str, Any], api: Any, secret: str) -> dict[str, Any]:
    key = KEYS[settings["type"]]
    return {"base_url": f"{api.url}/v1", key: secret, **settings}


@pytest.mark.parametrize(("settings", "where"), WHERE)
async def test_the_credential_is_where_the_api_expects_it(
    lend: Any, api: Any, canary: str, settings: dict[str, Any], where: str
) -> None:
    config = await lend(one=complete(settings, api, canary))
    async with connection_client(config, "one") as client:
        client.cookies.set("seen", "1")
        answer = await client.get("/invoices", params={"page": "2"})
    assert answer.json() == {"invoices": 3}
    (asked,) = api.asked
    expected = {
        "X-API-Key": canary,
        "Cookie": f"seen=1; session={canary}",
        "query": f"/v1/invoices?page=2&api_key={canary}",
        "Authorization": {
            "api_key": canary,
            "basic": "Basic Ym9iOmNhbmFyeS1aazN2SjlxWHcyTHJUOHNZYk41bUhjN1A=",
            "bearer": f"Bearer {canary}",
        }[settings["type"]],
    }[where]
    assert (asked.path if where == "query" else asked.headers[where]) == expected


@pytest.mark.parametrize(("settings", "where"), WHERE)
async def test_no_other_origin_is_shown_the_credential(
    lend: Any, api: Any, make_site: Any, canary: str, settings: dict[str, Any], where: str
) -> None:
    other = make_site()
    other.says("/stolen", {})
    api.says("/v1/moved", {}, status=307, Location=f"{other.url}/stolen")
    config = await lend(one=complete(settings, api, canary))
    async with connection_client(config, "one") as client:
        client.follow_redirects = True
        assert (await client.post("/moved", json={"a": 1})).status_code == 200
        assert (await client.get(f"{other.url}/stolen")).status_code == 200
        assert (await client.get(other.url.replace("127.0.0.1", "localhost"))).status_code == 404
    assert len(other.asked) == 3
    assert not any(_holds(canary, asked) for asked in other.asked)
    assert _holds(canary, api.asked[0])


def _holds(secret: str, asked: Any) -> bool:
    coded = base64.b64encode(f"bob:{secret}".encode()).decode()
    shown = f"{asked.path} {asked.headers} {asked.body!r}"
    return secret in shown or coded in shown


async def test_a_redirect_does_not_carry_the_query_to_others_or_into_the_log(
    lend: Any, api: Any, make_site: Any, canary: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="httpx2")
    other = make_site()
    api.routes["/v1/moved"] = lambda asked: (
        302,
        {"Location": f"{other.url}/there?{asked.path.partition('?')[2]}"},
        b"",
    )
    settings = {"type": "api_key", "in": "query", "name": "key"}
    config = await lend(one=complete(settings, api, canary))
    async with connection_client(config, "one") as client:
        answer = await client.get("/moved", params={"a": "1"}, follow_redirects=True)
    assert other.asked[0].path == "/there?a=1"
    assert str(answer.url) == f"{other.url}/there?a=1"
    assert canary not in caplog.text
    assert "HTTP Request" in caplog.text


async def test_a_redirect_to_no_address_is_the_clients_to_explain(
    lend: Any, api: Any, canary: str
) -> None:
    api.says("/v1/moved", {}, status=302, Location="https://bad:port/")
    config = await lend(one=complete({"type": "api_key", "in": "query"}, api, canary))
    async with connection_client(config, "one") as client:
        with pytest.raises(httpx2.HTTPError):
            await client.get("/moved", follow_redirects=True)


async def test_further_origins_of_the_same_api_are_its_own(
    lend: Any, api: Any, make_site: Any, canary: str
) -> None:
    files = make_site()
    files.says("/a", {})
    settings = {"type": "bearer", "origins": [files.url]}
    config = await lend(one=complete(settings, api, canary))
    async with connection_client(config, "one") as client:
        await client.get(f"{files.url}/a")
    assert files.asked[0].headers["Authorization"] == f"Bearer {canary}"


async def test_answers_and_log_lines_do_not_hold_the_credential(
    lend: Any, api: Any, billing: Any, canary: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = await lend(
        billing=billing, **{str(n): complete(one, api, canary) for n, (one, _) in enumerate(WHERE)}
    )
    for name in ("billing", *map(str, range(len(WHERE)))):
        async with connection_client(config, name) as client:
            answer = await client.get("/invoices")
            await client.get("/nowhere")
        request = answer.request
        assert canary not in f"{request.url} {request.headers.multi_items()} {vars(client)!r}"
    assert canary not in caplog.text


async def test_a_token_that_is_refused_is_renewed_once(
    lend: Any, api: Any, billing: Any, provider: Any, clock: Any, canary: str
) -> None:
    grant = api.routes["/v1/invoices"]

    def only_the_second(asked: Any) -> Any:
        good = asked.headers["Authorization"] == f"Bearer {canary}-2"
        return grant(asked) if good else (401, {}, b"expired")

    api.routes["/v1/invoices"] = only_the_second
    config = await lend(billing=billing)
    await connection(config, "billing")
    clock.now += 10
    async with connection_client(config, "billing") as client:
        answer = await client.post("/invoices", json={"amount": 3})
        assert answer.status_code == 200
        assert [asked.body for asked in api.asked] == [b'{"amount":3}'] * 2
        api.says("/v1/invoices", b"no", status=401)
        assert (await client.get("/invoices")).status_code == 401
    # The second was too new to be the reason.
    assert len(provider.at("/token")) == 2
    assert len(api.asked) == 3


async def test_an_api_that_refuses_every_token_is_asked_twice(
    lend: Any, api: Any, billing: Any, provider: Any, clock: Any
) -> None:
    api.says("/v1/invoices", b"no", status=401)
    config = await lend(billing=billing)
    await connection(config, "billing")
    clock.now += 10
    async with connection_client(config, "billing") as client:
        answer = await client.get("/invoices")
        assert (answer.status_code, answer.text) == (401, "no")
    assert (len(api.asked), len(provider.at("/token"))) == (2, 2)


async def test_a_body_that_is_read_but_once_is_not_sent_again(
    lend: Any, api: Any, billing: Any, provider: Any, clock: Any
) -> None:
    async def body() -> Any:
        yield b"one"

    api.says("/v1/invoices", b"no", status=401)
    config = await lend(billing=billing)
    await connection(config, "billing")
    clock.now += 10
    async with connection_client(config, "billing") as client:
        headers = {"Content-Length": "3"}
        assert (await client.post("/invoices", content=body(), headers=headers)).status_code == 401
        assert len(api.asked) == 1
        await client.get("/invoices")
    assert [asked.headers["Authorization"][-1] for asked in api.asked] == ["1", "2"]
    assert len(provider.at("/token")) == 2


async def test_a_constant_credential_that_is_refused_is_not_tried_again(
    lend: Any, api: Any, canary: str
) -> None:
    api.says("/v1/invoices", b"no", status=401)
    config = await lend(one=complete({"type": "bearer"}, api, canary))
    async with connection_client(config, "one") as client:
        assert (await client.get("/invoices")).status_code == 401
    assert len(api.asked) == 1


async def test_the_synchronous_client_does_the_same(
    lend: Any, api: Any, make_site: Any, billing: Any, provider: Any, clock: Any, canary: str
) -> None:
    other = make_site()
    good = api.routes["/v1/invoices"]
    api.says("/v1/moved", {}, status=302, Location=other.url)
    api.routes["/v1/invoices"] = lambda asked: (
        (401, {}, b"") if asked.headers["Authorization"].endswith("-1") else good(asked)
    )
    config = await lend(billing=billing)

    def work() -> None:
        with connection_client_sync(config, "billing", scopes=["a"]) as client:
            client.get("/moved", follow_redirects=True)
            clock.now += 10
            assert client.get("/invoices").json() == {"invoices": 3}
            client.get(f"{other.url}/x")

    await asyncio.to_thread(work)
    assert [asked.form["scope"] for asked in provider.at("/token")] == ["a", "a"]
    assert not any(_holds(canary, asked) for asked in other.asked)
    assert len(other.asked) == 2


async def test_without_a_token_a_request_says_why(lend: Any, billing: Any, provider: Any) -> None:
    provider.says("/token", {}, status=400)
    config = await lend(billing=billing)
    async with connection_client(config, "billing") as client:
        with pytest.raises(ConnectionUnavailable) as caught:
            await client.get("/invoices")
    assert caught.value.reason == "refused"


async def test_the_clients_have_the_timeout_of_the_file(lend: Any, api: Any, canary: str) -> None:
    config = await lend(one=complete({"type": "bearer", "timeout": 7}, api, canary))
    async with connection_client(config, "one") as client:
        assert client.timeout == httpx2.Timeout(7)
        assert str(client.base_url) == f"{api.url}/v1/"
        assert not client.follow_redirects


async def test_the_proxies_of_the_environment_are_used_but_not_for_loopback_addresses(
    lend: Any, api: Any, make_site: Any, canary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = make_site()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "inside.example.com")
    settings = {"type": "bearer", "token": canary}
    config = await lend(
        near={**settings, "base_url": f"{api.url}/v1"},
        far={**settings, "base_url": "https://crm.example.com"},
    )
    async with connection_client(config, "near") as client:
        assert (await client.get("/invoices")).status_code == 200
    async with connection_client(config, "far") as client:
        with pytest.raises(httpx2.ProxyError):
            await client.get("/invoices")
    (asked,) = proxy.asked
    assert (asked.method, asked.path) == ("CONNECT", "crm.example.com:443")
    assert canary not in str(asked.headers)


async def test_a_key_and_a_bearer_are_given_as_text_and_a_password_is_not(
    lend: Any, api: Any, canary: str
) -> None:
    config = await lend(
        crm=complete({"type": "api_key"}, api, canary),
        other=complete({"type": "bearer"}, api, canary),
        legacy=complete({"type": "basic", "username": "bob"}, api, canary),
    )
    assert await connection(config, "crm") == connection_sync(config, "other") == canary
    with pytest.raises(ValueError, match="'legacy' is a user name and a password: use its client"):
        await connection(config, "legacy")
    with pytest.raises(ValueError, match="'crm' has no scopes to choose from"):
        await connection(config, "crm", scopes=["a"])
