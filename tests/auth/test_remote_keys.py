"""R49 to R54 and R56: keys that an issuer publishes, from a real server on a loopback address."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest

from agentflow_server.auth import remote_keys
from agentflow_server.auth.claim_rules import ClaimRules
from agentflow_server.auth.fetching import Fetcher, FetchFailed, find_url_problem
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.remote_keys import RemoteKeys
from agentflow_server.errors import AuthUnavailable, NotAuthenticated

Ask = Callable[..., Awaitable[Any]]
KEYS = "/realms/shop/keys"
METADATA = "/realms/shop/.well-known/openid-configuration"


class Time:
    """The machine's time, moved on by hand."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return time.time() + self.passed


@asynccontextmanager
async def opened(provider: Any, **options: Any) -> AsyncIterator[JwtAuth]:
    """A verifier that has asked the provider for its keys."""
    clock = options.setdefault("clock", Time())
    options.setdefault("issuer", provider.issuer)
    auth = JwtAuth(RemoteKeys(**options), ClaimRules(issuer=provider.issuer), clock=clock)
    await auth.open()
    try:
        yield auth
    finally:
        await auth.close()


def pass_time(auth: JwtAuth, seconds: float) -> None:
    clock: Any = auth._clock
    clock.passed += seconds


async def unavailable(ask: Ask, auth: JwtAuth, token: str) -> str:
    with pytest.raises(AuthUnavailable) as caught:
        await ask(auth, token)
    return caught.value.reason


async def test_r54_the_issuer_alone_is_enough(provider: Any, ask: Ask) -> None:
    async with opened(provider) as auth:
        principal = await ask(auth, provider.token(scope="a b", jti="t1"))
        assert (principal.id, principal.issuer) == ("alice", provider.issuer)
        assert auth.problems() == ()


async def test_a_key_set_may_be_named_by_its_address(provider: Any, ask: Ask) -> None:
    async with opened(provider, url=f"{provider.issuer}/keys") as auth:
        assert (await ask(auth, provider.token())).id == "alice"
        assert provider.count("openid-configuration") == 0


# R49: unknown keys


async def test_r49_twenty_unknown_kids_cost_one_fetch_in_thirty_seconds(
    provider: Any, refusal: Ask, pair: Any
) -> None:
    async with opened(provider) as auth:
        provider.pairs = {f"stranger {n}": pair("RS256") for n in range(20)}
        strangers = [provider.token(kid) for kid in provider.pairs]
        provider.pairs = {"first": pair("RS256")}
        for token in strangers:
            assert await refusal(auth, token) == "unknown_key"
        assert provider.count("/keys") == 2
        pass_time(auth, 29.5)
        await refusal(auth, strangers[0])
        assert provider.count("/keys") == 2
        pass_time(auth, 0.5)
        await refusal(auth, strangers[0])
        assert provider.count("/keys") == 3


async def test_r49_a_failed_fetch_counts_too(
    provider: Any, ask: Ask, refusal: Ask, answer: Any, pair: Any
) -> None:
    async with opened(provider) as auth:
        good = provider.token()
        provider.answers[KEYS] = answer(b"down", status=500)
        provider.pairs["second"] = pair("ES256")
        for _ in range(20):
            assert await refusal(auth, provider.token("second")) == "unknown_key"
        assert provider.count("/keys") == 2
        assert (await ask(auth, good)).id == "alice"


async def test_r49_a_clock_that_is_set_back_stops_no_fetch(
    provider: Any, ask: Ask, refusal: Ask, pair: Any
) -> None:
    async with opened(provider) as auth:
        provider.pairs["second"] = pair("RS256")
        stranger = provider.token("second")
        del provider.pairs["second"]
        assert await refusal(auth, stranger) == "unknown_key"
        provider.pairs["second"] = pair("RS256")
        pass_time(auth, -3600)
        assert (await ask(auth, stranger)).id == "alice"


async def test_r56_a_new_key_works_at_its_first_token(provider: Any, ask: Ask, pair: Any) -> None:
    async with opened(provider) as auth:
        provider.pairs["second"] = pair("ES256")
        assert (await ask(auth, provider.token("second", sub="bob"))).id == "bob"
        assert (await ask(auth, provider.token("first"))).id == "alice"
        assert provider.count("/keys") == 2


async def test_r56_after_a_stranger_a_new_key_works_half_a_minute_later(
    provider: Any, ask: Ask, refusal: Ask, pair: Any
) -> None:
    async with opened(provider) as auth:
        provider.pairs["stranger"] = pair("RS256")
        stranger = provider.token("stranger")
        del provider.pairs["stranger"]
        assert await refusal(auth, stranger) == "unknown_key"
        provider.pairs["second"] = pair("ES256")
        token = provider.token("second")
        assert await refusal(auth, token) == "unknown_key"
        pass_time(auth, 30)
        assert (await ask(auth, token)).id == "alice"


async def test_r56_a_key_without_kid_that_was_replaced_is_found(
    provider: Any, ask: Ask, refusal: Ask, answer: Any, pair: Any
) -> None:
    def publish(request: object) -> Any:
        return answer({"keys": [provider.jwk(kid, kid=...) for kid in provider.pairs]})

    provider.answers[KEYS] = publish
    async with opened(provider, algorithms=["RS256", "ES256"]) as auth:
        old = provider.token("first")
        provider.pairs = {"other": pair("ES256")}
        assert (await ask(auth, provider.token("other"))).id == "alice"
        assert await refusal(auth, old) == "unknown_key"


# R50: one fetch at a time


async def test_r50_fifty_at_once_cost_one_fetch_and_known_keys_verify_meanwhile(
    provider: Any, ask: Ask, answer: Any, pair: Any
) -> None:
    async with opened(provider) as auth:
        known = provider.token()
        provider.pairs["second"] = pair("ES256")
        gate = threading.Event()
        keys = {"keys": [provider.jwk(kid) for kid in provider.pairs]}
        provider.answers[KEYS] = answer(keys, wait=gate)
        waiting = [
            asyncio.create_task(ask(auth, provider.token("second", jti=str(n)))) for n in range(50)
        ]
        await asyncio.to_thread(provider.wait_for, "/keys", 2)
        assert (await ask(auth, known)).id == "alice"
        assert not any(task.done() for task in waiting)
        gate.set()
        assert {principal.id for principal in await asyncio.gather(*waiting)} == {"alice"}
        assert provider.count("/keys") == 2


async def test_r50_a_request_that_goes_away_takes_no_fetch_with_it(
    provider: Any, ask: Ask, answer: Any, pair: Any
) -> None:
    async with opened(provider) as auth:
        provider.pairs["second"] = pair("ES256")
        gate = threading.Event()
        keys = {"keys": [provider.jwk(kid) for kid in provider.pairs]}
        provider.answers[KEYS] = answer(keys, wait=gate)
        leaving = asyncio.create_task(ask(auth, provider.token("second")))
        await asyncio.to_thread(provider.wait_for, "/keys", 2)
        staying = asyncio.create_task(ask(auth, provider.token("second")))
        leaving.cancel()
        await asyncio.wait({leaving})
        gate.set()
        assert (await staying).id == "alice"
        assert provider.count("/keys") == 2


# R51 and R56: time


async def test_r51_old_keys_are_used_for_a_day_when_no_newer_ones_can_be_had(
    provider: Any, ask: Ask, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(provider) as auth:
        token = provider.token(exp=int(time.time()) + 100 * 3600)
        provider.answers[KEYS] = answer(b"<html>", status=503)
        pass_time(auth, 300)
        assert (await ask(auth, token)).id == "alice"
        assert provider.count("/keys") == 2
        assert "the old ones stay in use" in caplog.text
        assert (await ask(auth, token)).id == "alice"
        assert provider.count("/keys") == 2, "after a failure nobody waits"
        assert auth.problems() == ()
        pass_time(auth, 24 * 3600 - 301)
        assert (await ask(auth, token)).id == "alice"
        pass_time(auth, 2)
        assert await unavailable(ask, auth, token) == "keys_unavailable"
        assert provider.issuer in auth.problems()[0]


async def test_r56_a_removed_key_stops_with_the_ttl(
    provider: Any, ask: Ask, refusal: Ask, pair: Any
) -> None:
    async with opened(provider) as auth:
        token = provider.token()
        assert (await ask(auth, token)).id == "alice"
        provider.pairs = {"second": pair("ES256")}
        pass_time(auth, 299)
        assert (await ask(auth, token)).id == "alice"
        pass_time(auth, 1)
        assert await refusal(auth, token) == "unknown_key"


async def test_r56_keys_are_renewed_in_the_background_before_they_get_old(
    provider: Any, refusal: Ask, pair: Any
) -> None:
    async with opened(provider, ttl=0.05) as auth:
        old = provider.token()
        provider.pairs = {"second": pair("ES256")}
        await asyncio.to_thread(provider.wait_for, "/keys", 3)
        seen = len(provider.received)
        assert await refusal(auth, old) == "unknown_key"
        assert len(provider.received) >= seen


async def test_r51_a_set_that_has_become_empty_lets_nobody_in(
    provider: Any, ask: Ask, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(provider) as auth:
        provider.answers[KEYS] = answer({"keys": []})
        pass_time(auth, 300)
        assert await unavailable(ask, auth, provider.token()) == "no_usable_keys"
        assert "no key that can be used" in auth.problems()[0]
        assert "no key that can be used" in caplog.text


# R52: start-up, limits and garbage


async def test_an_issuer_that_is_silent_at_first_is_a_503_and_recovers_by_itself(
    provider: Any, ask: Ask, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    provider.answers[METADATA] = answer(b"<html>", status=502)
    provider.answers["/.well-known/oauth-authorization-server/realms/shop"] = answer(
        b"", status=502
    )
    caplog.set_level("INFO")
    async with opened(provider, first_retry=0.01) as auth:
        assert await unavailable(ask, auth, provider.token()) == "keys_unavailable"
        (problem,) = auth.problems()
        assert provider.issuer in problem
        assert "502" in problem
        assert problem in caplog.text
        provider.answers.clear()
        await asyncio.to_thread(provider.wait_for, "/keys", 1)
        async with asyncio.timeout(10):
            while auth.problems():
                await asyncio.sleep(0)
        assert (await ask(auth, provider.token())).id == "alice"
        assert "there again" in caplog.text


async def test_r52_a_server_that_is_not_there_is_a_503(provider: Any, ask: Ask) -> None:
    provider.close()
    async with opened(provider) as auth:
        assert await unavailable(ask, auth, provider.token()) == "keys_unavailable"
        assert "ConnectError" in auth.problems()[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"body": b"<html>Sign in</html>"}, "not valid JSON"),
        ({"body": b"[]"}, "not a JSON Web Key Set"),
        ({"body": b" " * (512 * 1024 + 1)}, "more than 524288 bytes"),
        ({"status": 404}, "answered 404"),
        ({"status": 204}, "answered 204"),
        ({"status": 302, "headers": {"Location": KEYS + "/moved"}}, "answered 302"),
        ({"headers": {"Content-Encoding": "gzip"}}, "compressed"),
        ({"headers": {"Content-Length": "nonsense"}}, "RemoteProtocolError"),
    ],
)
async def test_r52_anything_but_a_plain_small_key_set_is_a_503(
    provider: Any, ask: Ask, answer: Any, change: dict[str, Any], why: str
) -> None:
    good = {"keys": [provider.jwk("first")]}
    provider.answers[KEYS + "/moved"] = answer(good)
    provider.answers[KEYS] = answer(**{"body": good, **change})
    async with opened(provider) as auth:
        assert await unavailable(ask, auth, provider.token()) == "keys_unavailable"
        assert why in auth.problems()[0]
    assert provider.count("/moved") == 0


async def test_r52_a_set_that_just_fits_is_read(provider: Any, ask: Ask, answer: Any) -> None:
    body = json.dumps({"keys": [provider.jwk("first")]}).encode()
    provider.answers[KEYS] = answer(body + b" " * (512 * 1024 - len(body)))
    async with opened(provider) as auth:
        assert (await ask(auth, provider.token())).id == "alice"


async def test_r52_a_slow_answer_is_not_waited_for(
    provider: Any, ask: Ask, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote_keys.LOAD_TIMEOUT <= 5
    assert Fetcher()._timeout <= 5
    gate = threading.Event()
    provider.answers[KEYS] = answer(b"{}", wait=gate)
    async with opened(provider, fetcher=Fetcher(timeout=0.5)) as auth:
        assert "did not answer within 0.5 s" in auth.problems()[0]
    monkeypatch.setattr(remote_keys, "LOAD_TIMEOUT", 0.5)
    async with opened(provider) as auth:
        assert "no answer within 0.5 s" in auth.problems()[0]
        assert await unavailable(ask, auth, provider.token()) == "keys_unavailable"
    gate.set()


async def test_whatever_goes_wrong_in_a_fetch_is_a_503(
    provider: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode(self: Fetcher, url: str) -> bytes:
        raise AttributeError("a library's surprise")

    monkeypatch.setattr(Fetcher, "get", explode)
    async with opened(provider) as auth:
        assert await unavailable(ask, auth, provider.token()) == "keys_unavailable"
        assert "unexpected" in auth.problems()[0]
        assert "a library's surprise" in caplog.text


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://id.example/keys", None),
        ("https://id.example:8443/keys?v=1", None),
        ("http://127.0.0.1:8080/keys", None),
        ("http://[::1]:8080/keys", None),
        ("http://localhost/keys", None),
        ("http://id.example/keys", "must be https"),
        ("http://localhost.example/keys", "must be https"),
        ("http://10.0.0.1/keys", "must be https"),
        ("file:///etc/passwd", "not an https URL"),
        ("ftp://id.example/keys", "not an https URL"),
        ("https:///keys", "not an https URL"),
        ("/keys", "not an https URL"),
        ("https://user:secret@id.example/keys", "user name or password"),
        ("https://id.example@evil.example/keys", "user name or password"),
        ("https://id.example/keys#part", "fragment"),
        ("https://id.example/a b", "space"),
        ("https://id.example/a\r\nb", "unprintable"),
        ("https://id.example:port/keys", "is not a URL"),
        ("https://[::1/keys", "is not a URL"),
    ],
)
async def test_r52_keys_are_asked_for_over_https_alone(url: str, problem: str | None) -> None:
    found = find_url_problem(url)
    if problem is None:
        assert found is None
        return
    assert problem in (found or "")
    with pytest.raises(FetchFailed, match=problem):
        await Fetcher().get(url)


# R54: what an issuer says of itself


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "https://evil.example"}, "name another issuer"),
        ({"issuer": None}, "name another issuer"),
        ({"jwks_uri": None}, "have no jwks_uri"),
        ({"jwks_uri": "http://id.example/keys"}, "must be https"),
        ({"jwks_uri": "file:///etc/passwd"}, "not an https URL"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "none of the accepted"),
        ({"id_token_signing_alg_values_supported": []}, "none of the accepted"),
    ],
)
async def test_r54_metadata_that_do_not_fit_are_a_503(
    provider: Any, ask: Ask, answer: Any, changes: dict[str, Any], why: str
) -> None:
    provider.answers[METADATA] = answer(provider.metadata(**changes))
    async with opened(provider) as auth:
        assert await unavailable(ask, auth, provider.token()) == "keys_unavailable"
        assert why in auth.problems()[0]


async def test_r54_the_issuer_is_compared_byte_for_byte(
    provider: Any, ask: Ask, answer: Any
) -> None:
    slashed = provider.issuer + "/"
    async with opened(provider, issuer=slashed) as auth:
        assert "name another issuer" in auth.problems()[0]
    provider.answers[METADATA] = answer(provider.metadata(issuer=slashed))
    async with opened(provider, issuer=slashed) as auth:
        assert auth.problems() == ()


async def test_r54_metadata_that_are_no_json_object_are_a_503(provider: Any, answer: Any) -> None:
    for body, why in ((b"<html>", "not valid JSON"), (b"[]", "expected a JSON object")):
        provider.answers[METADATA] = answer(body)
        async with opened(provider) as auth:
            assert why in auth.problems()[0]


async def test_r54_algorithms_are_those_of_both_and_never_hs256(
    provider: Any, ask: Ask, refusal: Ask, answer: Any, pair: Any
) -> None:
    provider.pairs |= {"ec": pair("ES256"), "large": pair("ES384")}
    async with opened(provider, algorithms=["RS256", "ES384", "HS256"]) as auth:
        assert (await ask(auth, provider.token("first"))).id == "alice"
        assert await refusal(auth, provider.token("ec")) == "alg_not_allowed"
        assert await refusal(auth, provider.token("large")) == "alg_not_allowed"
        provider.pairs["shared"] = pair("HS256")
        assert await refusal(auth, provider.token("shared")) == "alg_not_allowed"


async def test_r54_an_authorization_server_without_openid_is_discovered_too(
    provider: Any, ask: Ask, answer: Any
) -> None:
    provider.answers[METADATA] = answer(b"", status=404)
    metadata = provider.metadata()
    del metadata["id_token_signing_alg_values_supported"]
    provider.answers["/.well-known/oauth-authorization-server/realms/shop"] = answer(metadata)
    async with opened(provider) as auth:
        assert (await ask(auth, provider.token())).id == "alice"


def test_a_secure_issuer_has_secure_keys() -> None:
    from agentflow_server.auth.discovery import _judge

    issuer = "https://id.example"
    metadata = {"issuer": issuer, "jwks_uri": "http://127.0.0.1:1/keys"}
    with pytest.raises(FetchFailed, match="is not https"):
        _judge(metadata, issuer, frozenset({"RS256"}))


async def test_a_verifier_that_nobody_opened_fetches_at_the_first_request(
    provider: Any, ask: Ask
) -> None:
    auth = JwtAuth(RemoteKeys(issuer=provider.issuer), ClaimRules(issuer=provider.issuer))
    assert len(auth.problems()) == 1
    assert (await ask(auth, provider.token())).id == "alice"
    assert auth.problems() == ()
    await auth.close()


async def test_r13_nothing_a_token_says_is_fetched(provider: Any, refusal: Ask) -> None:
    async with opened(provider) as auth:
        before = len(provider.received)
        evil = f"{provider.origin}/evil"
        assert await refusal(auth, provider.token(iss=evil)) == "issuer_mismatch"
        provider.pairs[evil] = provider.pairs["first"]
        token = provider.token(evil)
        del provider.pairs[evil]
        assert await refusal(auth, token) == "unknown_key"
        claims = {"iss": provider.issuer, "sub": "alice", "exp": int(time.time()) + 600}
        signing = provider.pairs["first"].signing
        for name in ("jku", "x5u"):
            named = jwt.encode(claims, signing, "RS256", headers={"kid": "first", name: evil})
            assert await refusal(auth, named) == "header_not_supported"
        paths = {request.path for request in provider.received[before:]}
        assert paths <= {KEYS, METADATA}


async def test_a_refusal_stays_one_when_the_keys_have_not_changed(provider: Any, ask: Ask) -> None:
    async with opened(provider) as auth:
        header, payload, signature = provider.token().split(".")
        with pytest.raises(NotAuthenticated, match=r"^Could not validate credentials$"):
            await ask(auth, f"{header}.{payload}.{signature[::-1]}")
