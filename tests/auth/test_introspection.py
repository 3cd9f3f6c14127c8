"""R57 to R59: opaque tokens, about which a real endpoint on a loopback address is asked."""

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_plus

import pytest
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.claim_rules import ClaimRules
from agentflow_server.auth.fetching import Fetcher
from agentflow_server.auth.introspection import IntrospectionAuth, IntrospectionClient
from agentflow_server.errors import AuthUnavailable, NotAuthenticated

Ask = Callable[..., Awaitable[Any]]
PATH = "/realms/shop/introspect"
NOW = 1_800_000_000
TOKEN = "opaque-0123456789.~+/="
CLIENT_ID, CLIENT_SECRET = "shop:api", "s3cr et:%ä"


class Time:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
async def open_auth(provider: Any, clock: Time) -> Any:
    opened: list[IntrospectionAuth] = []

    def open_auth(
        *, client_auth: Any = "client_secret_basic", options: Any = None, **rules: Any
    ) -> IntrospectionAuth:
        client = IntrospectionClient(provider.origin + PATH, CLIENT_ID, CLIENT_SECRET, client_auth)
        options = {"clock": clock, **(options or {})}
        opened.append(IntrospectionAuth(client, ClaimRules(**rules), **options))
        return opened[-1]

    yield open_auth
    for auth in opened:
        await auth.close()


async def unavailable(ask: Ask, auth: Any, token: str = TOKEN) -> str:
    with pytest.raises(AuthUnavailable) as caught:
        await ask(auth, token)
    return caught.value.reason


async def test_r57_an_active_token_is_its_subject(provider: Any, open_auth: Any, ask: Ask) -> None:
    provider.active[TOKEN] = {
        "sub": "alice",
        "scope": "threads:read runs:create",
        "roles": ["editor"],
        "exp": NOW + 600,
        "iat": NOW - 5,
        "iss": provider.issuer,
        "jti": "t1",
        "client_id": "web",
    }
    principal = await ask(open_auth(issuer=provider.issuer), TOKEN)
    assert (principal.id, principal.method, principal.issuer) == (
        "alice",
        "introspection",
        provider.issuer,
    )
    assert principal.scopes == {"threads:read", "runs:create"}
    assert principal.roles == {"editor"}
    assert (principal.token_id, principal.issued_at) == ("t1", NOW - 5)
    assert principal.expires_at == NOW + 600
    assert principal.claims == {**provider.active[TOKEN], "user_id": "alice"}


async def test_an_answer_without_exp_has_no_end(provider: Any, open_auth: Any, ask: Ask) -> None:
    provider.active[TOKEN] = {"sub": "alice"}
    assert (await ask(open_auth(), TOKEN)).expires_at is None


async def test_r59_the_token_is_in_the_body_alone_and_the_client_authenticates(
    provider: Any, open_auth: Any, ask: Ask
) -> None:
    provider.active[TOKEN] = {"sub": "alice"}
    await ask(open_auth(), TOKEN)
    (request,) = provider.received
    assert (request.method, request.path) == ("POST", PATH)
    assert request.form == {"token": TOKEN, "token_type_hint": "access_token"}
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert TOKEN not in str(request.headers)
    scheme, _, pair = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    sent = [unquote_plus(part) for part in base64.b64decode(pair).decode().split(":")]
    assert sent == [CLIENT_ID, CLIENT_SECRET]


async def test_r59_the_client_may_authenticate_in_the_form(
    provider: Any, open_auth: Any, ask: Ask
) -> None:
    provider.active[TOKEN] = {"sub": "alice"}
    await ask(open_auth(client_auth="client_secret_post"), TOKEN)
    (request,) = provider.received
    assert request.form["client_id"] == CLIENT_ID
    assert request.form["client_secret"] == CLIENT_SECRET
    assert "authorization" not in request.headers


def test_r8_the_secret_never_shows_itself() -> None:
    assert CLIENT_SECRET not in repr(IntrospectionClient("https://id", CLIENT_ID, CLIENT_SECRET))


@pytest.mark.parametrize(
    "body",
    [
        {"active": "true", "sub": "alice"},
        {"active": 1, "sub": "alice"},
        {"active": None, "sub": "alice"},
        {"active": [True], "sub": "alice"},
        {"Active": True, "sub": "alice"},
        {"sub": "alice"},
        [],
        True,
        b"true",
        b"",
        b"<html>Sign in</html>",
        b'{"active": true, "active": true, "sub": "alice"}',
        b'{"active": true, "sub": "alice", "x": NaN}',
        b'\xff\xfe{"active": true}',
        b'{"active": true, "sub": "' + b"a" * 70_000 + b'"}',
    ],
)
async def test_r57_what_is_no_clear_yes_or_no_is_a_503(
    provider: Any, open_auth: Any, ask: Ask, answer: Any, body: Any
) -> None:
    provider.answers[PATH] = answer(body)
    auth = open_auth()
    assert (await unavailable(ask, auth)).startswith("introspection_")


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 403, 404, 500, 503])
async def test_r57_any_status_but_200_is_a_503(
    provider: Any,
    open_auth: Any,
    ask: Ask,
    answer: Any,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    location = {"Location": provider.origin + "/moved"}
    provider.answers[PATH] = answer(
        {"active": True, "sub": "alice"}, status=status, headers=location
    )
    assert await unavailable(ask, open_auth()) == "introspection_failed"
    assert provider.count("/moved") == 0
    assert str(status) in caplog.text
    assert ("client_secret" in caplog.text) == (status in {400, 401})
    assert TOKEN not in caplog.text
    assert CLIENT_SECRET not in caplog.text


async def test_r57_silence_is_a_503(provider: Any, open_auth: Any, ask: Ask, answer: Any) -> None:
    gate = threading.Event()
    provider.answers[PATH] = answer({"active": True, "sub": "alice"}, wait=gate)
    auth = open_auth(options={"fetcher": Fetcher(timeout=0.5)})
    assert await unavailable(ask, auth) == "introspection_failed"
    gate.set()
    provider.close()
    assert await unavailable(ask, auth) == "introspection_failed"


async def test_r57_an_inactive_token_is_refused(open_auth: Any, refusal: Ask) -> None:
    assert await refusal(open_auth(), TOKEN) == "inactive"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW}, "expired"),
        ({"exp": str(NOW + 600)}, "bad_exp"),
        ({"nbf": NOW + 60}, "not_yet_valid"),
        ({"iss": "https://evil.example"}, "issuer_mismatch"),
        ({"aud": "other"}, "audience_mismatch"),
        ({"aud": None}, "bad_aud"),
        ({"sub": ""}, "bad_user_id"),
        ({"token_type": "refresh_token"}, "not_an_access_token"),
        ({"tenant": "b"}, "required_claim"),
    ],
)
async def test_r57_the_claims_of_an_active_token_are_checked_again(
    provider: Any, open_auth: Any, ask: Ask, refusal: Ask, claims: dict[str, Any], reason: str
) -> None:
    good = {"sub": "alice", "iss": provider.issuer, "aud": ["api"], "exp": NOW + 60, "tenant": "a"}
    auth = open_auth(issuer=provider.issuer, audience=frozenset({"api"}), required={"tenant": "a"})
    provider.active[TOKEN] = {**good, **claims}
    assert await refusal(auth, TOKEN) == reason
    provider.active[TOKEN] = good
    assert (await ask(auth, TOKEN)).id == "alice"


# R58: the cache


async def test_r58_a_revoked_token_is_refused_within_a_minute(
    provider: Any, open_auth: Any, ask: Ask, refusal: Ask, clock: Time
) -> None:
    provider.active[TOKEN] = {"sub": "alice", "exp": NOW + 600}
    auth = open_auth()
    await ask(auth, TOKEN)
    del provider.active[TOKEN]
    clock.now += 59
    assert (await ask(auth, TOKEN)).id == "alice"
    assert len(provider.received) == 1
    clock.now += 1
    assert await refusal(auth, TOKEN) == "inactive"


async def test_r58_nothing_is_believed_beyond_exp(
    provider: Any, open_auth: Any, ask: Ask, refusal: Ask, clock: Time
) -> None:
    provider.active[TOKEN] = {"sub": "alice", "exp": NOW + 10}
    auth = open_auth()
    await ask(auth, TOKEN)
    clock.now += 9.9
    await ask(auth, TOKEN)
    clock.now += 0.1
    assert await refusal(auth, TOKEN) == "expired"


async def test_r58_a_no_is_never_kept(
    provider: Any, open_auth: Any, ask: Ask, refusal: Ask
) -> None:
    auth = open_auth()
    assert await refusal(auth, TOKEN) == "inactive"
    provider.active[TOKEN] = {"sub": "alice"}
    assert (await ask(auth, TOKEN)).id == "alice"


@pytest.mark.parametrize(("seconds", "asked"), [(0, 3), (30, 2), (60, 1), (3600, 1)])
async def test_r58_how_long_a_yes_is_kept_is_a_setting_of_a_minute_at_most(
    provider: Any, open_auth: Any, ask: Ask, clock: Time, seconds: float, asked: int
) -> None:
    provider.active[TOKEN] = {"sub": "alice"}
    auth = open_auth(options={"cache_seconds": seconds})
    for step in (0, 15, 15):
        clock.now += step
        await ask(auth, TOKEN)
    assert len(provider.received) == asked
    clock.now += 60
    await ask(auth, TOKEN)
    assert len(provider.received) == asked + 1


async def test_r58_another_policy_asks_for_itself(provider: Any, open_auth: Any, ask: Ask) -> None:
    provider.active[TOKEN] = {"sub": "alice", "aud": "api"}
    await ask(open_auth(audience=frozenset({"api"})), TOKEN)
    with pytest.raises(NotAuthenticated):
        await ask(open_auth(audience=frozenset({"other"})), TOKEN)


async def test_the_same_token_fifty_times_at_once_is_one_question(
    provider: Any, open_auth: Any, ask: Ask, answer: Any
) -> None:
    gate = threading.Event()
    provider.answers[PATH] = answer({"active": True, "sub": "alice"}, wait=gate)
    auth = open_auth()
    asking = [asyncio.create_task(ask(auth, TOKEN)) for _ in range(50)]
    await asyncio.to_thread(provider.wait_for, "/introspect", 1)
    asking[0].cancel()
    gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [getattr(one, "id", None) for one in answers[1:]] == ["alice"] * 49
    assert len(provider.received) == 1


async def test_closing_ends_open_questions(
    provider: Any, open_auth: Any, ask: Ask, answer: Any
) -> None:
    gate = threading.Event()
    provider.answers[PATH] = answer({"active": True, "sub": "alice"}, wait=gate)
    auth = open_auth()
    asking = asyncio.create_task(ask(auth, TOKEN))
    await asyncio.to_thread(provider.wait_for, "/introspect", 1)
    await auth.close()
    with pytest.raises(AuthUnavailable):
        await asking
    gate.set()


@pytest.mark.parametrize(
    ("token", "reason"),
    [("x" * 16_385, "too_long"), ("", "malformed"), ("a b", "malformed"), ("ä\ud800", "malformed")],
)
async def test_what_cannot_be_a_token_is_not_even_asked_about(
    provider: Any, open_auth: Any, refusal: Ask, token: str, reason: str
) -> None:
    assert await refusal(open_auth(), token) == reason
    assert not provider.received


async def test_without_a_credential_nobody_is_asked(open_auth: Any, refusal: Ask) -> None:
    assert await refusal(open_auth(), None) == "missing"


async def test_what_it_recognises(open_auth: Any) -> None:
    def recognised(auth: IntrospectionAuth, text: str, scheme: str = "Bearer") -> bool:
        return auth.recognises(HTTPAuthorizationCredentials(scheme=scheme, credentials=text))

    everything = open_auth()
    assert recognised(everything, "opaque")
    assert recognised(everything, "aa.bb.cc", "bearer")
    assert not recognised(everything, "opaque", "ApiKey")
    some = open_auth(
        options={
            "leaves_jwts": True,
            "is_foreign": lambda credential: credential.credentials.startswith("key_"),
        }
    )
    assert recognised(some, "opaque")
    assert not recognised(some, "aa.bb.cc")
    assert not recognised(some, "key_1")
