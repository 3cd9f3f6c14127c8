"""`/token`, `/revoke`, `/userinfo` and what the token server publishes, over real HTTP."""

import json
from urllib.parse import urlencode

import jwt
import pytest

PASSWORD = "tea kettle sings at noon"
FORM = {"grant_type": "password", "username": "alice", "password": PASSWORD}
TYPE = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def client(serve_tokens):
    async with serve_tokens() as client:
        yield client


async def get_tokens(client, **form):
    answer = await client.post("/token", data={**FORM, **form})
    assert answer.status_code == 200, answer.text
    return answer.json()


def bearer(tokens):
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def test_username_and_password_alone_are_enough_for_a_token(client):
    answer = await client.post("/token", data=FORM)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    tokens = answer.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
    assert (await client.get("/threads", headers=bearer(tokens))).status_code == 200
    verified = (await client.get("/verify-token", headers=bearer(tokens))).json()
    me = (await client.get("/users/me", headers=bearer(tokens))).json()
    assert (verified["valid"], verified["username"]) == (True, "alice")
    assert verified["user_id"] == me["user_id"]
    assert verified["scopes"] == ["threads:read"]
    assert me["claims"] == {"team": "sales"}
    assert "argon2" not in answer.text + json.dumps(me)


async def test_a_token_is_renewed_and_given_up(client):
    tokens = await get_tokens(client)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    renewed = (await client.post("/token", data=form)).json()
    assert (await client.get("/threads", headers=bearer(renewed))).status_code == 200
    for token in (renewed["refresh_token"], "nonsense"):
        answer = await client.post("/revoke", data={"token": token})
        assert (answer.status_code, answer.text) == (200, "")
    form["refresh_token"] = renewed["refresh_token"]
    refused = await client.post("/token", data=form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


async def test_a_confidential_client_says_who_it_is_in_the_header_or_in_the_form(
    client, job_secret
):
    form = {"grant_type": "client_credentials"}
    by_form = {**form, "client_id": "job", "client_secret": job_secret}
    for answer in (
        await client.post("/token", data=form, auth=("job", job_secret)),
        await client.post("/token", data=by_form),
    ):
        assert answer.status_code == 200
        found = (await client.get("/verify-token", headers=bearer(answer.json()))).json()
        assert (found["user_id"], found["username"]) == ("client:job", None)
    twice = await client.post("/token", data=by_form, auth=("job", job_secret))
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    wrong = await client.post("/token", data=form, auth=("job", "wrong"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert wrong.headers["www-authenticate"].startswith("Basic ")


async def test_wrong_passwords_unknown_users_and_missing_codes_look_alike(client):
    answers = [
        await client.post("/token", data={**FORM, **wrong})
        for wrong in ({"password": "x"}, {"username": "nobody"}, {"username": "bob"})
    ]
    assert {answer.status_code for answer in answers} == {400}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"] == "invalid_grant"
    assert answers[0].headers["cache-control"] == "no-store"


async def test_the_second_factor_goes_with_the_password(client, totp_of_bob):
    code = totp_of_bob()
    assert await get_tokens(client, username="bob", totp=code)
    again = await client.post("/token", data={**FORM, "username": "bob", "totp": code})
    assert again.json()["error"] == "invalid_grant"


async def test_r66_what_is_no_proper_form_is_an_invalid_request(client):
    encoded = urlencode(FORM)
    plain = {"Content-Type": "text/plain"}
    answers = [
        await client.post("/token", json=FORM),
        await client.post("/token", content=encoded, headers=plain),
        await client.post("/token", files={"grant_type": (None, "password")}),
        await client.post("/token", content=f"{encoded}&username=bob", headers=TYPE),
        await client.post("/token", content=f"{encoded}&scope=&scope=a", headers=TYPE),
        await client.post("/token", content=b"\xff=1", headers=TYPE),
        await client.post(f"/token?{encoded}", data=FORM),
        await client.post("/token?a=1", data=FORM),
        await client.post("/token"),
        await client.post("/token", content="", headers=TYPE),
        await client.post("/revoke", data={"token_type_hint": "refresh_token"}),
        await client.post("/revoke", json={"token": "x"}),
    ]
    assert {answer.status_code for answer in answers} == {400}
    assert {answer.json()["error"] for answer in answers} == {"invalid_request"}
    assert PASSWORD not in "".join(answer.text for answer in answers)
    charset = {"Content-Type": "Application/X-WWW-Form-Urlencoded; charset=UTF-8"}
    fine = await client.post("/token", content=encoded, headers=charset)
    assert fine.status_code == 200


async def test_r35_a_form_that_is_too_long_is_refused_in_the_same_way(client):
    answer = await client.post("/token", data={**FORM, "password": "x" * 20_000})
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")

    async def chunks():
        for _ in range(20):
            yield b"x" * 1000

    answer = await client.post("/token", content=chunks(), headers=TYPE)
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


async def test_r65_whoever_tries_too_often_waits(serve_tokens):
    async with serve_tokens(rate_limit={"failed_auth": "2/minute"}) as client:
        for _ in range(2):
            await client.post("/token", data={**FORM, "password": "x"})
        answer = await client.post("/token", data=FORM)
        assert (answer.status_code, answer.json()["error"]) == (429, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    async with serve_tokens(rate_limit={"per_address": "1/minute"}) as client:
        await client.post("/revoke", data={"token": "x"})
        for url in ("/token", "/revoke"):
            answer = await client.post(url, data=FORM)
            assert (answer.status_code, answer.json()["error"]) == (429, "temporarily_unavailable")
            assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_userinfo_is_about_the_tokens_owner(client, method):
    tokens = await get_tokens(client)
    answer = await client.request(method, "/userinfo", headers=bearer(tokens))
    me = (await client.get("/users/me", headers=bearer(tokens))).json()
    assert answer.json()["sub"] == me["user_id"]
    assert answer.json()["username"] == "alice"
    assert (await client.request(method, "/userinfo")).status_code == 401


@pytest.mark.parametrize("path", ["", "/agents"])
async def test_programs_find_endpoints_and_keys(serve_tokens, path):
    async with serve_tokens(path) as client:
        issuer = client.app.config.public_url
        url = "/.well-known/oauth-authorization-server"
        for found in {url, f"{url}{path}"}:
            answer = await client.get(found)
            metadata = answer.json()
            assert metadata["issuer"] == issuer
            assert metadata["token_endpoint"] == f"{issuer}/token"
            assert "max-age=300" in answer.headers["cache-control"]
        assert (await client.get(f"{url}/elsewhere")).status_code == 404
        keys = await client.get("/.well-known/jwks.json")
        assert "max-age=300" in keys.headers["cache-control"]
        token = (await get_tokens(client))["access_token"]
        key = jwt.PyJWKSet.from_dict(keys.json())[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key, algorithms=["ES256"], audience=issuer, issuer=issuer)
        assert claims["sub"] == claims["user_id"]
        assert all("d" not in found for found in keys.json()["keys"])
        resource = await client.get(f"/.well-known/oauth-protected-resource{path}")
        assert resource.json()["authorization_servers"] == [issuer]


async def test_without_a_token_server_none_of_it_is_there(serve):
    client = await serve(auth="jwt")
    for method, path in (
        ("POST", "/token"), ("POST", "/revoke"), ("GET", "/authorize"), ("POST", "/authorize"),
        ("GET", "/userinfo"), ("POST", "/userinfo"), ("GET", "/.well-known/jwks.json"),
        ("GET", "/.well-known/oauth-authorization-server"),
    ):  # fmt: skip
        assert (await client.request(method, path)).status_code == 404


async def test_a_page_of_another_origin_may_log_in_once_cors_allows_it(serve_tokens):
    origin = "https://app.example.com"
    headers = {"Origin": origin}
    async with serve_tokens(cors={"allow_origins": [origin]}) as client:
        answer = await client.post("/token", data=FORM, headers=headers)
        assert answer.headers["access-control-allow-origin"] == origin
    async with serve_tokens() as client:
        answer = await client.post("/token", data=FORM, headers=headers)
        assert "access-control-allow-origin" not in answer.headers


async def test_r80_what_was_granted_and_refused_is_in_the_audit_log(serve_tokens, tmp_path):
    audit = {"audit": {"sink": "file", "path": "audit.log"}}
    async with serve_tokens(observability=audit) as client:
        tokens = await get_tokens(client)
        await client.post("/token", data={**FORM, "password": "not this one"})
        await client.post("/token", json=FORM)
        for token in (tokens["refresh_token"], "none of ours"):
            await client.post("/revoke", data={"token": token})
    written = (tmp_path / "audit.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in written.splitlines()]
    told = [(line["action"], line["result"], line.get("reason")) for line in lines]
    assert told == [
        ("token.issued", "success", None),
        ("token.refused", "failure", "bad_credentials"),
        ("token.refused", "failure", "invalid_request"),
        ("token.revoked", "success", None),
    ]
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert (lines[0]["user_id"], lines[0]["token_id"]) == (claims["sub"], claims["jti"])
    assert lines[0]["details"] == {"client_id": "agentflow", "grant": "password"}
    assert {line["route"] for line in lines} == {"POST /token", "POST /revoke"}
    for secret in (PASSWORD, "not this one", *tokens.values()):
        assert not isinstance(secret, str) or len(secret) < 15 or secret not in written
