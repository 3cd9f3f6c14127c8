"""`/authorize`: the login page, whom it lets through, and where it sends them."""

import base64
import hashlib
import json
import re
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

PASSWORD = "tea kettle sings at noon"
VERIFIER = "v" * 43
CALLBACK = "https://app.example.com/callback"
REQUEST = {
    "response_type": "code",
    "client_id": "app",
    "redirect_uri": CALLBACK,
    "state": "a state & more",
    "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    .rstrip(b"=")
    .decode(),
    "code_challenge_method": "S256",
}
ISSUER = "http://127.0.0.1:8000"


@pytest.fixture
async def client(serve_tokens):
    async with serve_tokens() as client:
        yield client


async def show(client, **changed):
    return await client.get("/authorize", params={**REQUEST, **changed})


async def log_in(client, page, **fields):
    """Fill the form of `page` in, and send it to where a browser would."""
    token = re.search(r'name="form_token" value="([^"]*)"', page.text)
    assert 'method="post">' in page.text  # no action: to the page's own address
    form = {"form_token": token[1], "username": "alice", "password": PASSWORD, **fields}
    same = {"Sec-Fetch-Site": "same-origin"}
    return await client.post(page.url.raw_path.decode(), data=form, headers=same)


async def redeem(client, answer):
    assert answer.status_code == 303, answer.text
    found = {
        name: one for name, (one,) in parse_qs(urlsplit(answer.headers["location"]).query).items()
    }
    form = {
        "grant_type": "authorization_code", "code": found["code"], "client_id": "app",
        "redirect_uri": CALLBACK, "code_verifier": VERIFIER,
    }  # fmt: skip
    return found, await client.post("/token", data=form)


async def test_who_logs_in_goes_back_with_a_code_that_is_good_for_a_token(client):
    page = await show(client)
    answer = await log_in(client, page)
    assert answer.headers["location"].startswith(f"{CALLBACK}?")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    found, token = await redeem(client, answer)
    assert (found["state"], found["iss"]) == ("a state & more", ISSUER)
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    assert (await client.get("/users/me", headers=headers)).json()["username"] == "alice"


async def test_the_page_needs_nothing_and_lets_nobody_use_it(client):
    page = await show(client)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "form-action 'self' https://app.example.com;" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text
    assert not re.search(r'(?:src|href)="(?!data:,)', page.text)
    style = re.search(r"<style>(.*)</style>", page.text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert "The &lt;app&gt;" in page.text
    assert "https://app.example.com" in page.text


async def test_r79_the_form_belongs_to_the_browser_and_the_request_it_was_shown_for(client):
    page = await show(client)
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert (await log_in(client, page, form_token="")).status_code == 403
    assert (await log_in(client, page, form_token="0" * 64)).status_code == 403
    foreign = {"Sec-Fetch-Site": "cross-site"}
    form = {"username": "alice", "password": PASSWORD}
    form["form_token"] = re.search(r'name="form_token" value="([^"]*)"', page.text)[1]
    url = page.url.raw_path.decode()
    assert (await client.post(url, data=form, headers=foreign)).status_code == 403
    assert (await client.post(f"{url}&scope=a", data=form)).status_code == 403
    async with httpx2.AsyncClient(base_url=client.base_url) as other:
        assert (await other.post(url, data=form)).status_code == 403
    again = await log_in(client, page, form_token="")
    assert "Please try again" in again.text
    assert (await log_in(client, again)).status_code == 303


async def test_several_tabs_log_in_one_after_the_other(client):
    pages = [await show(client, state=str(number)) for number in range(2)]
    for page in pages:
        assert (await log_in(client, page)).status_code == 303


async def test_r79_over_https_the_cookie_is_bound_to_this_very_host(serve_tokens):
    async with serve_tokens(public_url="https://agents.example.com") as client:
        cookie = (await show(client)).headers["set-cookie"]
    assert cookie.startswith("__Host-agentflow-login=")
    assert "Secure" in cookie
    assert "Path=/;" in cookie
    assert "Domain" not in cookie


async def test_wrong_passwords_unknown_users_and_missing_codes_look_alike(client):
    page = await show(client)
    answers = [
        await log_in(client, page, password="x"),
        await log_in(client, page, username="bob", password="x"),
        await log_in(client, page, username="bob"),
        await log_in(client, page, username="bob", totp="000000"),
        await log_in(client, page, username="nobody"),
    ]
    assert {answer.status_code for answer in answers} == {403}
    texts = {re.sub(r'value="(alice|bob|nobody)"', "", answer.text) for answer in answers}
    assert len(texts) == 1
    assert 'role="alert"' in texts.pop()
    assert (await log_in(client, answers[0])).status_code == 303


async def test_the_second_factor_is_asked_for_on_the_same_page(client, totp_of_bob):
    answer = await log_in(client, await show(client), username="bob", totp=totp_of_bob())
    assert answer.status_code == 303


async def test_what_was_typed_is_shown_and_never_executed(client):
    evil = '"><script>alert(1)</script>' + "x" * 200
    answer = await log_in(client, await show(client), username=evil, password="x")
    assert "<script" not in answer.text
    assert "&quot;&gt;&lt;script&gt;" in answer.text
    assert "x" * 129 not in answer.text


@pytest.mark.parametrize(
    "changed",
    [{"client_id": "nobody"}, {"redirect_uri": "https://evil.example/callback"},
     {"redirect_uri": f"{CALLBACK}/"}, {"redirect_uri": ""}],
)  # fmt: skip
async def test_r73_nobody_is_sent_to_where_the_client_does_not_live(client, changed):
    for method in ("GET", "POST"):
        answer = await client.request(method, "/authorize", params={**REQUEST, **changed})
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert "evil.example" not in answer.text
        assert "form-action 'none'" in answer.headers["content-security-policy"]


async def test_what_else_is_wrong_the_client_is_told(client):
    for method in ("GET", "POST"):
        params = {**REQUEST, "code_challenge_method": "plain"}
        answer = await client.request(method, "/authorize", params=params)
        assert answer.status_code == 303
        found = parse_qs(urlsplit(answer.headers["location"]).query)
        assert (found["error"], found["state"]) == (["invalid_request"], ["a state & more"])
        assert found["iss"] == [ISSUER]


async def test_r66_parameters_that_occur_twice_and_bodies_that_are_no_forms_are_refused(client):
    page = await show(client)
    url = page.url.raw_path.decode()
    answers = [
        await client.get(f"{url}&client_id=app"),
        await client.post(url, json={"username": "alice"}),
        await client.post(
            url, content="username=a&username=b",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ),
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} == {400}
    assert all("text/html" in answer.headers["content-type"] for answer in answers)


async def test_whoever_tries_too_often_is_told_when_to_come_back(serve_tokens):
    async with serve_tokens(rate_limit={"failed_auth": "1/minute"}) as client:
        page = await show(client)
        await log_in(client, page, password="x")
        answer = await log_in(client, page)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert "try again later" in answer.text


async def test_r80_logins_are_in_the_audit_log(serve_tokens, tmp_path):
    audit = {"audit": {"sink": "file", "path": "audit.log"}}
    async with serve_tokens(observability=audit) as client:
        page = await show(client)
        await log_in(client, page, password="not this one")
        await log_in(client, page)
    written = (tmp_path / "audit.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["action"], line["result"], line.get("reason")) for line in lines] == [
        ("login", "failure", "bad_credentials"),
        ("login", "success", None),
    ]
    assert lines[1]["details"] == {"client_id": "app", "grant": "password"}
    assert lines[1]["user_id"]
    assert PASSWORD not in written
    assert "not this one" not in written


@pytest.mark.parametrize(
    ("redirect_uri", "source"),
    [("http://127.0.0.1:5000/callback", "http://127.0.0.1:5000"),
     ("http://[::1]:5000/callback", "http:")],
)  # fmt: skip
async def test_a_program_on_this_machine_may_take_any_port(client, redirect_uri, source):
    page = await show(client, client_id="agentflow", redirect_uri=redirect_uri)
    assert f"form-action 'self' {source};" in page.headers["content-security-policy"]
