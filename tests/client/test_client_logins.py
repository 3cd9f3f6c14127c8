"""Logging in: tokens that are renewed in time, once for all who wait, and never shown."""

import asyncio
import base64
import json
import logging
import threading
import time

import pytest
from anyio import to_thread

from agentflow_server import client as clients
from agentflow_server.client import (
    AgentflowClient,
    AsyncAgentflowClient,
    ClientCredentials,
    FunctionToken,
    LoginFailed,
    MemoryTokens,
    NotAuthenticated,
    Password,
    RefreshToken,
    StaticToken,
    Token,
)

TOGETHER = 50


def grants(issuer):
    return [form["grant_type"] for form in issuer.grants]


@pytest.fixture
def clock(monkeypatch):
    """`clock(60)`: a minute later, for the client alone."""
    ahead = [0.0]
    monkeypatch.setattr("agentflow_server.client.tokens.now", lambda: time.time() + ahead[0])

    def pass_time(seconds):
        ahead[0] += seconds

    return pass_time


@pytest.fixture
def gatekeeper(script, json_answer):
    """A server that lets in whoever has one of `good`; `good` is None: nobody, ever."""
    state = {"good": set()}

    def answer(asked):
        if asked.bearer in state["good"]:
            return json_answer({"data": []})
        return json_answer({"code": "not_authenticated", "detail": "No: " + asked.bearer}, 401)

    state["server"] = script(answer)
    return state


async def test_a_password_logs_in_once_for_many_requests(connect, served, issuer):
    login = Password(issuer.url, "alice", "correct horse", scope="threads")
    client = connect(served.url, login)
    assert client.client.is_token_valid() is False
    thread = await client("create_thread")
    assert (await client("get_thread", thread.thread_id)) == thread
    assert client.client.is_token_valid() is True
    assert issuer.grants == [
        {
            "grant_type": "password",
            "username": "alice",
            "password": "correct horse",
            "scope": "threads",
        }
    ]


async def test_a_token_is_renewed_before_it_expires(connect, served, issuer, clock):
    client = connect(served.url, Password(issuer.url, "alice", "correct horse"), leeway=30)
    await client("list_agents")
    clock(269)
    assert client.client.is_token_valid() is True
    await client("list_agents")
    assert grants(issuer) == ["password"]
    clock(2)
    assert client.client.is_token_valid() is False
    await client("list_agents")
    assert grants(issuer) == ["password", "refresh_token"]


async def test_a_token_that_lives_shorter_than_the_leeway_is_used_all_the_same(
    connect, served, issuer, clock
):
    issuer.lifetime = 20
    client = connect(served.url, Password(issuer.url, "alice", "correct horse"), leeway=300)
    await client("list_agents")
    clock(9)
    await client("list_agents")
    assert grants(issuer) == ["password"]


async def test_a_login_whose_refresh_token_is_refused_starts_anew(connect, served, issuer, clock):
    client = connect(served.url, Password(issuer.url, "alice", "correct horse"))
    await client("list_agents")
    issuer.refresh_tokens.clear()
    clock(290)
    await client("list_agents")
    assert grants(issuer) == ["password", "refresh_token", "password"]


async def test_a_program_logs_in_with_its_secret(connect, served, issuer, clock):
    for client_auth in ("client_secret_basic", "client_secret_post"):
        login = ClientCredentials(
            issuer.url,
            "program",
            "client secret",
            client_auth=client_auth,
            extra={"audience": "agents"},
        )
        client = connect(served.url, login)
        await client("list_agents")
        clock(290)
        await client("list_agents")
    assert grants(issuer) == ["client_credentials"] * 4
    assert {form["audience"] for form in issuer.grants} == {"agents"}


async def test_a_refresh_token_is_replaced_each_time_it_is_used(connect, served, issuer, clock):
    client = connect(served.url, RefreshToken(issuer.url, issuer.new_refresh_token()))
    for _ in range(3):
        await client("list_agents")
        clock(290)
    assert len({form["refresh_token"] for form in issuer.grants}) == 3
    assert not issuer.is_family_revoked


async def test_a_server_without_rotation_gets_the_same_refresh_token(
    connect, served, issuer, clock, script, json_answer, token
):
    asked = script(
        lambda _: json_answer({"access_token": token(), "token_type": "bearer", "expires_in": "60"})
    )
    client = connect(served.url, RefreshToken(asked.url, "again", client_id="app"))
    for _ in range(2):
        await client("list_agents")
        clock(290)
    assert {request.form["refresh_token"] for request in asked.asked} == {"again"}
    assert {request.form["client_id"] for request in asked.asked} == {"app"}


async def test_a_used_up_refresh_token_says_what_to_do(connect, served, issuer):
    used = issuer.new_refresh_token()
    await connect(served.url, RefreshToken(issuer.url, used))("list_agents")
    with pytest.raises(LoginFailed) as caught:
        await connect(served.url, RefreshToken(issuer.url, used))("list_agents")
    assert (caught.value.code, caught.value.status) == ("invalid_grant", 400)
    assert used not in str(caught.value)
    with pytest.raises(LoginFailed, match="log in first"):
        await connect(served.url, RefreshToken(issuer.url))("list_agents")


async def test_a_token_server_that_refuses_for_another_reason_is_not_asked_again(
    connect, served, script, json_answer, clock
):
    server = script(lambda _: json_answer({"error": "invalid_client"}, 401))
    for login in (
        RefreshToken(server.url, "one", store=stored(server.url, "other")),
        Password(server.url, "alice", "x", store=stored(server.url, "other", " alice")),
    ):
        with pytest.raises(LoginFailed) as caught:
            await connect(served.url, login)("list_agents")
        assert caught.value.code == "invalid_client"
    assert [asked.form["refresh_token"] for asked in server.asked] == ["other", "other"]


def stored(url, refresh_token, user=""):
    store = MemoryTokens()
    store.save(Token("x", expires_at=1.0, refresh_token=refresh_token, source=f"{url} {user}"))
    return store


async def test_a_wrong_password_is_an_error_that_does_not_show_it(connect, served, issuer):
    with pytest.raises(LoginFailed) as caught:
        await connect(served.url, Password(issuer.url, "alice", "wrong pony"))("list_agents")
    assert caught.value.code == "invalid_grant"
    assert "wrong pony" not in str(caught.value)
    assert len(issuer.grants) == 1


async def test_a_function_gives_the_token(connect, served, token):
    given = []

    def give():
        given.append(token())
        return given[-1]

    client = connect(served.url, give)
    await client("list_agents")
    await client("list_agents")
    assert len(given) == 1
    assert client.client.is_token_valid() is True
    known = connect(served.url, lambda: Token(token(), expires_at=1.0, source="elsewhere"))
    await known("list_agents")
    await known("list_agents")
    with pytest.raises(LoginFailed, match="NoneType"):
        await connect(served.url, lambda: None)("list_agents")


async def test_an_async_function_gives_the_token(served, token):
    async def give():
        await asyncio.sleep(0)
        return token()

    class Giver:
        async def __call__(self):
            return await give()

    for function in (give, Giver()):
        async with AsyncAgentflowClient(served.url, function) as client:
            assert await client.list_agents()
        with (
            AgentflowClient(served.url, function) as client,
            pytest.raises(TypeError, match="AsyncAgentflowClient"),
        ):
            client.list_agents()


def test_any_awaitable_is_too_much_for_a_synchronous_client(served):
    loop = asyncio.new_event_loop()
    with (
        AgentflowClient(served.url, loop.create_future) as client,
        pytest.raises(TypeError),
    ):
        client.list_agents()
    loop.close()


async def test_a_function_that_gets_no_answer_is_a_failed_login(connect, served):
    import httpx2

    def give():
        raise httpx2.ConnectError("nobody there")

    with pytest.raises(LoginFailed) as caught:
        await connect(served.url, give)("list_agents")
    assert caught.value.code == "unreachable"


def test_fifty_threads_log_in_once(served, issuer):
    issuer.slow = 0.1
    failures = []
    with AgentflowClient(served.url, Password(issuer.url, "alice", "correct horse")) as client:
        start = threading.Barrier(TOGETHER)

        def work():
            start.wait()
            try:
                client.list_agents()
            except Exception as error:  # noqa: BLE001 – whatever it is, the test shows it
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(TOGETHER)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert grants(issuer) == ["password"]


async def test_fifty_tasks_log_in_once(served, issuer, clock):
    issuer.slow = 0.1
    login = Password(issuer.url, "alice", "correct horse")
    async with AsyncAgentflowClient(served.url, login) as client:
        await asyncio.gather(*(client.list_agents() for _ in range(TOGETHER)))
        clock(290)
        await asyncio.gather(*(client.list_agents() for _ in range(TOGETHER)))
    assert grants(issuer) == ["password", "refresh_token"]


async def test_two_clients_with_one_login_share_its_tokens(served, issuer):
    login = RefreshToken(issuer.url, issuer.new_refresh_token())
    async with AsyncAgentflowClient(served.url, login) as client:
        await client.list_agents()
    with AgentflowClient(served.url, login) as other:
        other.list_agents()
    assert grants(issuer) == ["refresh_token"]


async def test_a_new_refresh_token_is_kept_when_its_waiter_is_gone(served, issuer):
    issuer.gate.clear()
    login = RefreshToken(issuer.url, issuer.new_refresh_token())
    async with AsyncAgentflowClient(served.url, login) as client:
        task = asyncio.create_task(client.list_agents())
        await to_thread.run_sync(issuer.asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        issuer.gate.set()
    async with AsyncAgentflowClient(served.url, login) as client:
        assert await client.list_agents()
    assert grants(issuer) == ["refresh_token"]


async def test_a_login_that_fails_after_its_waiter_is_gone_is_no_warning(served, issuer):
    issuer.gate.clear()
    async with AsyncAgentflowClient(served.url, RefreshToken(issuer.url, "unknown")) as client:
        task = asyncio.create_task(client.list_agents())
        await to_thread.run_sync(issuer.asked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        issuer.gate.set()
    assert issuer.is_family_revoked


async def test_a_refused_token_is_renewed_once_and_the_request_repeated(
    connect, gatekeeper, issuer
):
    client = connect(gatekeeper["server"].url, Password(issuer.url, "alice", "correct horse"))
    with pytest.raises(NotAuthenticated) as caught:
        await client("list_agents")
    assert caught.value.status == 401
    assert len(gatekeeper["server"].asked) == 2
    assert grants(issuer) == ["password", "refresh_token"]
    for asked in gatekeeper["server"].asked:
        assert asked.bearer not in str(caught.value)


async def test_a_replay_with_the_fresh_token_succeeds(connect, served, issuer, token):
    given = [token(lifetime=-5), token()]
    client = connect(served.url, lambda: Token(given.pop(0)))
    assert (await client("create_thread", metadata={"n": 1})).metadata == {"n": 1}
    assert given == []


async def test_a_token_that_cannot_be_replaced_is_not_sent_again(connect, gatekeeper):
    for auth in ("key", StaticToken("key"), lambda: "key"):
        before = len(gatekeeper["server"].asked)
        with pytest.raises(NotAuthenticated):
            await connect(gatekeeper["server"].url, auth)("list_agents")
        assert len(gatekeeper["server"].asked) == before + 1


async def test_fifty_refusals_are_one_renewal(gatekeeper, issuer):
    login = Password(issuer.url, "alice", "correct horse")
    async with AsyncAgentflowClient(gatekeeper["server"].url, login) as client:
        await client.get_authenticated_headers()
        answers = await asyncio.gather(
            *(client.list_agents() for _ in range(TOGETHER)), return_exceptions=True
        )
    assert {type(answer) for answer in answers} == {NotAuthenticated}
    assert grants(issuer) == ["password", "refresh_token"]


@pytest.mark.parametrize("skew", [-600, 600])
@pytest.mark.parametrize("says_lifetime", [True, False])
async def test_a_clock_that_is_wrong_by_minutes_is_no_reason_to_log_in_again(
    connect, gatekeeper, issuer, skew, says_lifetime
):
    issuer.skew, issuer.says_lifetime = skew, says_lifetime
    client = connect(gatekeeper["server"].url, Password(issuer.url, "alice", "correct horse"))
    headers = await client("get_authenticated_headers")
    gatekeeper["good"].add(headers["Authorization"].removeprefix("Bearer "))
    assert client.client.is_token_valid() is True
    for _ in range(3):
        await client("list_agents")
    assert grants(issuer) == ["password"]


async def test_an_expired_token_of_ones_own_is_refused_by_the_server(connect, served, token):
    client = connect(served.url, token(lifetime=-60))
    assert client.client.is_token_valid() is False
    with pytest.raises(NotAuthenticated, match="expired"):
        await client("list_agents")


async def test_a_token_server_that_is_away_does_not_matter_while_the_token_is_good(
    connect, served, issuer, clock, caplog
):
    client = connect(served.url, Password(issuer.url, "alice", "correct horse"))
    await client("list_agents")
    issuer.is_away = True
    clock(275)
    assert await client("list_agents")
    assert "could not be renewed yet" in caplog.text
    clock(30)
    with pytest.raises(LoginFailed) as caught:
        await client("list_agents")
    assert caught.value.code == "unreachable"


async def test_odd_answers_of_a_token_endpoint_are_errors_without_secrets(
    connect, served, script, json_answer
):
    secret = "very secret"
    odd = {
        "html": (200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"),
        "list": json_answer([]),
        "empty": json_answer({}),
        "mac": json_answer({"access_token": "x", "token_type": "mac"}),
        "spaces": json_answer({"access_token": "a b\r\nX: y", "token_type": "bearer"}),
        "redirect": (307, {"Location": "http://127.0.0.1:9/"}, b""),
        "no reason": json_answer({}, 500),
        "huge": (400, {}, b"{" + b" " * 3_000_000),
        "nothing": None,
        "repeated": json_answer({"error": "x", "error_description": "Not " + secret}, 400),
    }
    for answer in odd.values():
        server = script(lambda _, answer=answer: answer)
        login = ClientCredentials(server.url, "program", secret)
        with pytest.raises(LoginFailed) as caught:
            await connect(served.url, login)("list_agents")
        assert secret not in str(caught.value) + repr(caught.value)
        assert len(server.asked) == 1


async def test_no_secret_is_in_what_a_program_writes_about_its_client(
    connect, served, issuer, caplog, token, gatekeeper
):
    caplog.set_level(logging.DEBUG)
    refresh_token = issuer.new_refresh_token()
    own = token()
    logins = [
        Password(issuer.url, "alice", "correct horse", client_id="x", client_secret="hush hush"),
        RefreshToken(issuer.url, refresh_token),
        StaticToken(own),
        FunctionToken(lambda: own),
    ]
    secrets = {"correct horse", "correct+horse", "hush hush", refresh_token, own}
    shown = []
    for login in logins:
        client = connect(served.url, login)
        await client("list_agents")
        headers = await client("get_authenticated_headers")
        secrets.add(headers["Authorization"].removeprefix("Bearer "))
        with pytest.raises(NotAuthenticated) as caught:
            await connect(gatekeeper["server"].url, login)("list_agents")
        shown += [repr(client.client), repr(login), repr(login.store.load()), repr(caught.value)]
        shown += [str(caught.value), repr(vars(client.client))]
    secrets |= set(issuer.refresh_tokens)
    text = "\n".join([*shown, caplog.text])
    assert "got a new token" in text
    assert [secret for secret in secrets if secret in text] == []


async def test_headers_go_to_the_servers_own_origin_alone(connect, script, json_answer):
    server = script(lambda _: json_answer({"data": []}))
    other = script(lambda _: json_answer({}))
    client = connect(server.url, "key")
    host = server.url.removeprefix("http://")
    for url in (
        other.url,
        server.url.replace("http", "https"),
        server.url.replace("127.0.0.1", "localhost"),
        f"http://alice:x@{host}/",
        f"http://{host}@127.0.0.1:1/",
        "ftp://127.0.0.1/",
        "http://[",
    ):
        with pytest.raises(clients.AgentflowClientError) as caught:
            await client("make_authenticated_request", url)
        assert caught.value.code == "foreign_origin"
    for url in (f"{server.url}/x?y=1", "/x?y=1", "x?y=1", "//x?y=1"):
        answer = await client("make_authenticated_request", url)
        assert answer.json() == {"data": []}
    assert {(asked.path, asked.bearer) for asked in server.asked} == {("/x?y=1", "key")}
    assert other.asked == []


@pytest.mark.parametrize(
    "url", ["example.com", "ftp://x", "http://", "http://a:b@x", "http://x?y=1", "http://x:y", ""]
)
def test_what_is_no_url_of_a_server_is_refused_at_once(url):
    with pytest.raises(ValueError, match="URL"):
        AgentflowClient(url)


async def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(connect, served):
    with pytest.raises(LoginFailed) as caught:
        await connect(served.url, lambda: "a\r\nX-Evil: 1")("list_agents")
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize("claims", ["[]", '{"exp": true}', '{"exp": "1"}', "{", "{}"])
def test_what_only_looks_like_a_jwt_has_no_times(claims):
    payload = base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
    assert Token.of(f"a.{payload}.b").expires_at is None
    assert Token.of("a.%%%.b").expires_at is None
    assert json.loads(Token.of("opaque").dumps())["expires_at"] is None
