"""The HTTP rules that hold for every route, R28 to R44 of the security requirements."""

import json
import uuid

import httpx2
import pytest
from fastapi.routing import APIRoute, APIWebSocketRoute

from agentflow_server import ConfigError
from agentflow_server.errors import StoreUnavailable
from agentflow_server.web.secured import SecuredRoute

PUBLIC = {
    "/ping", "/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/{asset}",
    "/docs/oauth2-redirect",
    "/.well-known/oauth-protected-resource{path:path}",
}  # fmt: skip


def routes_of(app):
    """Also those of included routers, and those that do not come from FastAPI's decorators."""
    found = []
    for route in app.routes:
        found += route.original_router.routes if hasattr(route, "original_router") else [route]
    # Who may open a socket is another test's business.
    return [route for route in found if not isinstance(route, APIWebSocketRoute)]


def test_r33_the_public_routes_are_these_and_no_others(project):
    app = project.app(auth="jwt")
    public = {route.path for route in routes_of(app) if not isinstance(route, SecuredRoute)}
    assert public == PUBLIC
    assert len(routes_of(app)) > len(PUBLIC)


async def test_r28_r33_every_other_route_wants_a_credential(serve, project):
    client = await serve(auth="jwt")
    for route in routes_of(project.app(auth="jwt")):
        assert isinstance(route, APIRoute)
        path = route.path.replace("{thread_id}", str(uuid.uuid4())).replace(
            "{run_id}", str(uuid.uuid4())
        )
        path = path.replace("{path:path}", "")
        for method in route.methods:
            answer = await client.request(method, path)
            if route.path in PUBLIC:
                assert answer.status_code in {200, 404}, path
            else:
                assert answer.status_code == 401, path
                assert answer.json()["detail"] == "Not authenticated"
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    ["//threads", "/threads/", "/THREADS", "/%74hreads", "/./threads", "/ping/../threads",
     "/ping/..%2fthreads", "/threads%2f", "/docs/../threads", "/threads?x=/ping", "/threads;/ping"],
)  # fmt: skip
async def test_r33_spellings_of_a_path_open_nothing(serve, exchange, path):
    client = await serve(auth="jwt")
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await exchange(client, request.encode())
    assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 404"))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "path",
    ["/threads/", "/threads//", "//threads", "/ping/", "/docs/", "/openapi.json/", "//evil.example",
     "//evil.example/", "//evil.example/threads/", "/\\evil.example/", "/%2f%2fevil.example/",
     "///evil.example/..", "/threads/?next=https://evil.example", "/https://evil.example/"],
)  # fmt: skip
async def test_r44_a_slash_redirects_nobody(serve, exchange, token, path, known):
    client = await serve(auth="jwt")
    credential = f"Authorization: Bearer {token()}\r\n" if known else ""
    request = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n{credential}Connection: close\r\n\r\n"
    answer = await exchange(client, request.encode())
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 401"))
    assert b"location:" not in answer.lower()
    assert b"evil.example" not in answer


async def test_r28_a_refused_token_is_named_as_the_reason(serve, token):
    client = await serve(auth="jwt")
    answer = await client.get("/threads", headers={"Authorization": "Bearer x.y.z"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json()["detail"] == "Could not validate credentials"
    expired = {"Authorization": f"Bearer {token(exp=1_700_000_000)}"}
    assert (await client.get("/threads", headers=expired)).json()["detail"] == "Token has expired"


@pytest.mark.parametrize("value", ["Basic eDp5", "Token x", "nonsense", "Digest a=b", ""])
async def test_r28_without_a_token_there_is_a_challenge_and_no_error(serve, value):
    client = await serve(auth="jwt")
    answer = await client.get("/threads", headers={"Authorization": value})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_r38_every_token_is_refused_in_the_same_words(serve, token):
    client = await serve(auth="jwt")
    good = token()
    head, payload, signature = good.split(".")
    refused = [
        "x", "a.b.c", good[:-2], f"{head}.{payload}.", f"{head}.{payload}.{signature[::-1]}",
        token(user_id=""), token(exp="soon"), token(aud="them"), token(nbf=4_000_000_000),
        token(token_use="id"), "eyJhbGciOiJub25lIn0.e30.", "a" * 17_000,
    ]  # fmt: skip
    answers = [
        await client.get("/threads", headers={"Authorization": f"Bearer {one}"}) for one in refused
    ]
    (text,) = {answer.text for answer in answers}
    assert json.loads(text) == {
        "type": "urn:agentflow:not_authenticated",
        "title": "Unauthorized",
        "status": 401,
        "detail": "Could not validate credentials",
        "code": "not_authenticated",
    }


async def test_r38_what_nobody_expected_is_told_in_constant_words(serve, monkeypatch, caplog):
    def explode(*args, **kwargs):
        raise RuntimeError("/srv/agentflow/secret.key: hunter2")

    client = await serve(auth=None)
    monkeypatch.setattr("agentflow_server.stores.sqlite.SqliteStore.list_threads", explode)
    answer = await client.get("/threads")
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "urn:agentflow:internal_error",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Something went wrong on our side",
        "code": "internal_error",
    }
    assert "hunter2" in caplog.text


async def test_a_database_that_is_away_is_one_line_in_the_log(serve, monkeypatch, caplog):
    async def refuse(*args, **kwargs):
        raise StoreUnavailable("The database cannot be used right now") from OSError("gone")

    client = await serve(auth=None)
    monkeypatch.setattr("agentflow_server.stores.sqlite.SqliteStore.list_threads", refuse)
    assert (await client.get("/threads")).status_code == 503
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.getMessage() == "store_unavailable: The database cannot be used right now"
    assert record.exc_info is None


async def test_r30_two_credentials_are_none(serve, token, exchange):
    client = await serve(auth="jwt")
    good = f"Bearer {token()}"
    joined = await client.get("/threads", headers={"Authorization": f"{good}, {good}"})
    assert joined.status_code == 401
    twice = await client.get("/threads", headers=[("Authorization", good), ("Authorization", good)])
    assert twice.status_code == 401
    mixed = await client.get(
        "/threads", headers=[("Authorization", "Basic eDp5"), ("Authorization", good)]
    )
    assert mixed.status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_r31_the_scheme_may_be_written_in_any_case(serve, token, scheme):
    client = await serve(auth="jwt")
    answer = await client.get("/threads", headers={"Authorization": f"{scheme} {token()}"})
    assert answer.status_code == 200


async def test_r31_a_token_anywhere_else_is_no_token(serve, token):
    client = await serve(auth="jwt")
    secret = token()
    answers = [
        await client.get(f"/threads?access_token={secret}&token={secret}"),
        await client.get("/threads", headers={"Cookie": f"access_token={secret}"}),
        await client.get("/threads", headers={"X-API-Key": secret, "X-Authorization": secret}),
        await client.get("/threads", headers={"Proxy-Authorization": f"Bearer {secret}"}),
        await client.get("/threads", headers={"Authorization": secret}),
        await client.get("/threads", headers={"Authorization": f"Basic {secret}"}),
        await client.get("/threads", headers={"Authorization": f"Token {secret}"}),
        await client.get("/threads", headers={"Authorization": "Bearer"}),
        await client.post("/threads", data={"access_token": secret}),
        await client.post("/threads", json={"access_token": secret, "token": secret}),
        await client.get(f"/threads/{secret}"),
    ]
    assert {answer.status_code for answer in answers} == {401}


async def test_r32_headers_of_proxies_grant_nothing(serve):
    client = await serve(auth="jwt")
    headers = {
        "X-Forwarded-For": "127.0.0.1", "X-Remote-User": "admin", "X-Original-URL": "/ping",
        "X-Rewrite-URL": "/ping", "X-Forwarded-Prefix": "/ping", "User-Agent": "kube-probe/1.0",
        "Forwarded": "for=127.0.0.1", "X-Forwarded-User": "admin",
    }  # fmt: skip
    assert (await client.get("/threads", headers=headers)).status_code == 401


async def test_r40_answers_are_not_stored_and_not_sniffed(serve, as_user, new_thread):
    client = await serve(auth="jwt")
    alice = as_user()
    url = f"/threads/{await new_thread(client, headers=alice)}"
    hello = {"content": "Hello"}
    answers = [
        await client.get("/threads"),
        await client.get("/threads", headers=alice),
        await client.get("/agents", headers=alice),
        await client.get("/threads?limit=x", headers=alice),
        await client.get("/threads/nope", headers=alice),
        await client.put("/threads", headers=alice),
        await client.post(f"{url}/messages", json=hello, headers=alice),
        await client.post(f"{url}/messages", json={**hello, "stream": True}, headers=alice),
        await client.get(f"{url}/messages", headers=alice),
        await client.delete(url, headers=alice),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [401, 200, 200, 422, 404, 405, 200, 200, 200, 204]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_r39_cors_is_off_until_it_is_configured(serve):
    client = await serve()
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    preflight = await client.options("/threads", headers=headers)
    assert preflight.status_code == 405
    plain = await client.get("/threads", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in plain.headers


async def test_r39_only_configured_origins_are_answered(serve, as_user):
    client = await serve(auth="jwt", cors={"allow_origins": ["https://app.example"]})
    good = {"Origin": "https://app.example"}
    evil = {"Origin": "https://evil.example"}
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    preflight = await client.options("/threads", headers=good | ask)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert (await client.options("/threads", headers=evil | ask)).status_code == 400
    answer = await client.get("/threads", headers=good | as_user())
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    refused = await client.get("/threads", headers=good)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    other = await client.get("/threads", headers=evil | as_user())
    assert "access-control-allow-origin" not in other.headers


def test_r39_no_origin_at_all_is_answered_with_credentials(project):
    cors = {"allow_origins": ["*"], "allow_credentials": True}
    with pytest.raises(ConfigError, match=r"cors\.allow_credentials: cannot be combined"):
        project.app(cors=cors)


async def test_r92_mode_none_ignores_the_header(serve, new_thread):
    client = await serve()
    for header in ("Bearer x.y.z", "Basic eDp5", "nonsense", "Bearer " + "a" * 20_000):
        assert (await client.get("/threads", headers={"Authorization": header})).status_code == 200


async def test_r82_requests_have_an_id_and_one_line_in_the_log_without_the_query(serve, caplog):
    caplog.set_level("INFO", logger="agentflow_server.access")
    client = await serve()
    own = await client.get("/ping?access_token=hunter2", headers={"X-Request-Id": "abc-1"})
    assert own.headers["x-request-id"] == "abc-1"
    made = await client.get("/ping", headers={"X-Request-Id": "a b\u00e9".encode("latin-1")})
    assert len(made.headers["x-request-id"]) == 32
    records = [r for r in caplog.records if r.name == "agentflow_server.access"]
    assert len(records) == 2
    assert (records[0].path, records[0].status, records[0].request_id) == ("/ping", 200, "abc-1")
    assert "hunter2" not in caplog.text


async def test_an_unknown_path_and_method_are_problem_documents(serve):
    client = await serve()
    missing = await client.get("/nope")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = await client.put("/threads")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "allow" in wrong.headers


async def test_health_says_when_the_database_cannot_be_written(project, run_app):
    app = project.app()
    async with run_app(app) as url, httpx2.AsyncClient(base_url=url) as client:
        for path in ("/ping", "/health/live", "/health/ready"):
            assert (await client.get(path)).json() == {"status": "ok"}
        store = app._parts.database.store
        await store.write(lambda connection: connection.execute("PRAGMA query_only = ON").close())
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "store_unavailable")
        assert (await client.get("/health/live")).status_code == 200
        refused = await client.post("/threads")
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert refused.headers["retry-after"] == "5"
        assert "readonly" not in refused.text
