"""The authorization code: who may ask for one, where it goes, and who may redeem it."""

import asyncio
from urllib.parse import parse_qs, urlsplit

import pytest

from agentflow_server.errors import NotAuthenticated
from agentflow_server.models import UserChange
from agentflow_server.token_server import (
    AuthorizationRefused,
    ClientLogin,
    LoginRefused,
    OAuthError,
)
from agentflow_server.token_server.pkce import make_challenge, proves
from agentflow_server.token_server.redirects import is_registered

BACK = "https://app.example.com/back?x=1"
GOOD = "tea kettle sings at noon"


def answer_in(url):
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


@pytest.fixture
def get_code(server, caller):
    async def get_code(**changes):
        request = server.check_authorization(caller.query(**changes))
        found = await server.log_in(request, "alice", GOOD, None, address="192.0.2.1")
        return answer_in(found.redirect_url)["code"]

    return get_code


@pytest.fixture
def redeem(caller, verifier):
    def redeem(code, client="web", **form):
        form = {"redirect_uri": BACK, "code_verifier": verifier, **form}
        return caller.ask("authorization_code", client, code=code, **form)

    return redeem


async def test_a_login_brings_the_browser_back_with_a_code_state_and_issuer(
    scene, server, caller, redeem
):
    request = server.check_authorization(caller.query(scope="threads:read"))
    assert (request.client_name, request.state) == ("Web", "a b&c")
    found = await server.log_in(request, "alice", GOOD, None, address="192.0.2.1")
    assert found.user_id == scene.alice.user_id
    assert found.redirect_url.startswith(f"{BACK}&code=")
    answer = answer_in(found.redirect_url)
    assert (answer["state"], answer["iss"], answer["x"]) == ("a b&c", server.issuer, "1")
    assert answer["code"] not in repr(found)
    tokens = await redeem(answer["code"])
    principal = await scene.judge(tokens.access_token)
    assert (principal.id, principal.scopes) == (scene.alice.user_id, {"threads:read"})
    refreshed = await caller.refresh(tokens.refresh_token, "web")
    assert refreshed.scope == "threads:read"


async def test_a_code_that_comes_twice_ends_what_came_of_it(scene, caller, get_code, redeem):
    code = await get_code()
    tokens = await redeem(code)
    error = await caller.refusal(redeem(code))
    assert (error.code, error.reason) == ("invalid_grant", "code_reused")
    with pytest.raises(NotAuthenticated):
        await scene.judge(tokens.access_token)
    error = await caller.refusal(caller.refresh(tokens.refresh_token, "web"))
    assert error.code == "invalid_grant"


async def test_of_two_who_redeem_a_code_at_the_same_time_at_most_one_has_tokens(
    caller, get_code, redeem
):
    code = await get_code()
    answers = await asyncio.gather(*(redeem(code) for _ in range(4)), return_exceptions=True)
    won = [answer for answer in answers if not isinstance(answer, OAuthError)]
    assert len(won) <= 1
    for answer in won:
        error = await caller.refusal(caller.refresh(answer.refresh_token, "web"))
        assert error.code == "invalid_grant"


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"code_verifier": "x" * 43}, "wrong_verifier"),
        ({"code_verifier": "short"}, "wrong_verifier"),
        ({"redirect_uri": "https://app.example.com/back"}, "redirect_uri_mismatch"),
        ({"client": "agentflow"}, "foreign_code"),
    ],
)
async def test_a_code_is_for_who_asked_for_it(caller, get_code, redeem, form, reason):
    error = await caller.refusal(redeem(await get_code(), **form))
    assert (error.code, error.reason) == ("invalid_grant", reason)


@pytest.mark.parametrize("missing", ["code_verifier", "redirect_uri"])
async def test_a_code_without_its_proof_is_an_invalid_request_and_stays_good(
    caller, get_code, redeem, missing
):
    code = await get_code()
    assert (await caller.refusal(redeem(code, **{missing: ""}))).code == "invalid_request"
    await redeem(code)


async def test_a_code_is_good_for_a_minute(scene, caller, get_code, redeem):
    code = await get_code()
    scene.clock.now += 61
    assert (await caller.refusal(redeem(code))).reason == "code_expired"


async def test_a_code_of_a_user_who_was_disabled_is_refused(scene, caller, get_code, redeem):
    code = await get_code()
    await scene.store.update_user(scene.alice.user_id, UserChange(disabled=True))
    assert (await caller.refusal(redeem(code))).reason == "no_such_user"


async def test_a_code_of_a_user_whose_grants_were_revoked_is_refused(
    scene, caller, get_code, redeem
):
    code = await get_code()
    await scene.store.revoke_user_grants(scene.alice.user_id)
    assert (await caller.refusal(redeem(code))).code == "invalid_grant"


@pytest.mark.parametrize("code", ["x", "ä", "y" * 1000])
async def test_a_made_up_code_is_refused(caller, redeem, code):
    assert (await caller.refusal(redeem(code))).reason == "unknown_code"


async def test_a_wrong_password_leads_nowhere(server, caller):
    request = server.check_authorization(caller.query())
    for username, password in (("alice", "wrong"), ("nobody", GOOD)):
        with pytest.raises(LoginRefused) as caught:
            await server.log_in(request, username, password, None, address="192.0.2.1")
        assert (str(caught.value), caught.value.retry_after) == (LoginRefused.TEXT, None)


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example.com/back"},
        {"redirect_uri": "https://app.example.com/back?x=1#f"},
        {"redirect_uri": "https://app.example.com/back?x=1&y=2"},
        {"client_id": "own", "redirect_uri": "http://127.0.0.1/callback"},
    ],
)
async def test_r73_nobody_is_sent_to_an_address_that_is_not_registered(server, caller, change):
    with pytest.raises(OAuthError) as caught:
        server.check_authorization(caller.query(**change))
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "+" * 43}, "invalid_request"),
        ({"scope": 'a"b'}, "invalid_scope"),
    ],
)
async def test_any_other_mistake_is_told_to_the_client(server, caller, change, code):
    with pytest.raises(AuthorizationRefused) as caught:
        server.check_authorization(caller.query(**change))
    answer = answer_in(caught.value.redirect_url)
    assert caught.value.redirect_url.startswith(f"{BACK}&error=")
    assert (answer["error"], answer["state"], answer["iss"]) == (code, "a b&c", server.issuer)


async def test_without_a_state_none_comes_back(server, caller):
    with pytest.raises(AuthorizationRefused) as caught:
        server.check_authorization(caller.query(state=None, response_type="x"))
    assert "state" not in answer_in(caught.value.redirect_url)


async def test_a_client_whose_grant_was_taken_away_gets_no_code(scene, caller):
    clients = dict(scene.config.clients)
    clients["web"] = clients["web"].model_copy(update={"grants": ("refresh_token",)})
    server = scene.make_server(clients=clients)
    with pytest.raises(AuthorizationRefused, match="unauthorized_client"):
        server.check_authorization(caller.query())


@pytest.mark.parametrize(
    ("uri", "is_good"),
    [
        ("http://127.0.0.1/callback", True),
        ("http://127.0.0.1:51234/callback", True),
        ("http://127.0.0.1:0/callback", True),
        ("http://127.0.0.1:80@evil.example.com/callback", False),
        ("http://127.0.0.1.evil.example.com/callback", False),
        ("http://127.0.0.1:123456/callback", False),
        ("http://127.0.0.1:８０/callback", False),
        ("http://127.0.0.1:/callback", False),
        ("http://127.0.0.1/callback/", False),
        ("http://127.0.0.1/callback?x", False),
        ("http://127.0.0.1\\@evil.example.com/callback", False),
        ("http://[::1]:80/callback", False),
        ("http://localhost/callback", False),
        ("https://127.0.0.1/callback", False),
        ("HTTP://127.0.0.1/callback", False),
        ("", False),
    ],
)
def test_r73_of_a_loopback_address_any_port_is_meant_and_nothing_else(uri, is_good):
    assert is_registered(uri, ["http://127.0.0.1/callback"]) is is_good


def test_an_https_address_is_compared_with_its_port():
    registered = ["https://app.example.com/back"]
    assert is_registered("https://app.example.com/back", registered)
    assert not is_registered("https://app.example.com:8443/back", registered)


def test_the_proof_is_that_of_the_specification():
    # RFC 7636, appendix B
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert make_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert proves(verifier, make_challenge(verifier))
    assert not proves(verifier, verifier)


async def test_a_secret_is_asked_of_a_client_that_has_one(caller, client_secret):
    wrong = [
        caller.ask("client_credentials", "robot"),
        caller.ask("client_credentials", "robot", secret=""),
        caller.ask("client_credentials", "robot", secret=client_secret[:-1]),
        caller.ask("client_credentials", "nobody", secret=client_secret),
        caller.ask("password", "own", secret="anything", username="alice", password=GOOD),
    ]
    errors = [await caller.refusal(one) for one in wrong]
    assert {(error.code, error.status, str(error)) for error in errors} == {
        ("invalid_client", 401, "The client is not known, or its secret is wrong")
    }
    await caller.ask("client_credentials", "robot", secret=client_secret)


async def test_without_a_client_it_is_the_built_in_one(scene, server):
    form = {"grant_type": "password", "username": "alice", "password": GOOD}
    answer = await server.grant(form, None, address="192.0.2.1")
    assert answer.client_id == "agentflow"
    empty = ClientLogin("agentflow", "")  # as Basic sends no secret
    assert (await server.grant(form, empty, address="192.0.2.1")).client_id == "agentflow"
