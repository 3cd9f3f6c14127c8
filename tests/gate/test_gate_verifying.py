"""A card is verified by its server, or by keys, and by nothing else."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from agentflow_server import AuthCard
from agentflow_server.gate import (
    BadCard,
    CardExpired,
    CardRefused,
    CardUnverified,
    LocalKeys,
    verdicts,
)


@pytest.fixture(params=["sync", "async"])
async def check(request):
    """Checks a card in either way; never on the loop where that would block it."""

    async def check(card):
        if request.param == "async":
            await card.acheck()
        else:
            await asyncio.to_thread(card.check)

    return check


async def test_the_servers_own_token_is_good(check, server, token):
    await check(AuthCard(token(), server))


async def test_the_whole_url_of_the_guide_will_do(check, server, token):
    await check(AuthCard(token(), f"{server}/verify-token"))


async def test_a_token_of_another_server_is_refused(check, server):
    stranger = jwt.encode({"user_id": "alice", "exp": time.time() + 60}, "k" * 40, "HS256")
    with pytest.raises(CardRefused, match="refuses the card's token"):
        await check(AuthCard(stranger, server))


async def test_an_expired_token_is_told_from_a_wrong_one(check, server, token):
    with pytest.raises(CardExpired, match=r"expired on 20..-..-.. .*: a new card is needed"):
        await check(AuthCard(token(lifetime=-1), server))


async def test_a_wrong_path_is_told_with_the_setting_to_look_at(check, server, token):
    with pytest.raises(CardUnverified, match=r"404 \(is api_url right\?\)"):
        await check(AuthCard(token(), f"{server}/nowhere"))


async def test_a_server_that_is_not_there_says_nothing(check, token):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(CardUnverified, match=f"127.0.0.1:{port}"):
        await check(AuthCard(token(), f"http://127.0.0.1:{port}"))


async def test_a_server_that_does_not_answer_in_time_says_nothing(check, verifier):
    verifier.let_go.clear()
    with pytest.raises(CardUnverified, match="did not answer within"):
        await check(AuthCard("a-token", verifier.url, timeout=0.2))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(check, verifier, status):
    verifier.status, verifier.headers["Location"] = status, f"{verifier.url}/verify-token"
    with pytest.raises(CardUnverified, match="redirects are not followed"):
        await check(AuthCard("a-token", verifier.url))
    assert len(verifier.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"true",
        b"{}",
        b'{"valid": "true"}',
        b'{"valid": 1}',
        b'{"valid": false, "valid": true}',
        b'{"active": true}',
        b'{"valid": true, "expires_at": "soon"}',
        b'{"valid": true}' + b" " * 70_000,
    ],
)
async def test_only_a_plain_yes_is_a_yes(check, verifier, body):
    verifier.body = body
    with pytest.raises(CardUnverified):
        await check(AuthCard("a-token", verifier.url))


@pytest.mark.parametrize("status", [200, 401, 403])
async def test_a_no_is_a_no_in_all_its_forms(check, verifier, status):
    verifier.status, verifier.body = status, b'{"valid": false}'
    with pytest.raises(CardRefused):
        await check(AuthCard("a-token", verifier.url))


@pytest.mark.parametrize("status", [204, 206, 429, 500, 503])
async def test_whatever_else_a_server_says_is_no_yes(check, verifier, status):
    verifier.status = status
    with pytest.raises(CardUnverified, match=f"answered {status}"):
        await check(AuthCard("a-token", verifier.url))


async def test_what_the_server_says_of_the_end_counts(check, verifier):
    past = datetime.now(UTC) - timedelta(seconds=1)
    verifier.body = json.dumps({"valid": True, "expires_at": past.isoformat()}).encode()
    with pytest.raises(CardExpired):
        await check(AuthCard("a-token", verifier.url))


async def test_the_token_is_in_the_header_alone(check, verifier, good):
    await check(good)
    assert verifier.asked == [("/verify-token", "Bearer good-token")]


async def test_no_error_shows_the_token(check, verifier, bad):
    for change in ({}, {"status": 500}, {"status": 200, "body": b"bad-token"}):
        vars(verifier).update(change)
        with pytest.raises((CardRefused, CardUnverified)) as caught:
            await check(bad)
        assert "bad-token" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_a_yes_is_believed_for_a_while(check, verifier, good):
    for _ in range(3):
        await check(good)
    assert len(verifier.asked) == 1


async def test_a_yes_is_believed_no_longer_than_it_may(check, verifier):
    card = AuthCard("a-token", verifier.url, cache_seconds=0)
    await check(card)
    verifier.refuse()
    with pytest.raises(CardRefused):
        await check(card)


async def test_a_yes_ends_with_the_token(check, verifier, token, monkeypatch):
    card = AuthCard(token(lifetime=20), verifier.url)
    await check(card)
    later = time.time() + 21
    monkeypatch.setattr(verdicts.time, "time", lambda: later)
    with pytest.raises(CardExpired):
        await check(card)


async def test_a_yes_ends_when_the_server_said_so(check, verifier, monkeypatch):
    soon = datetime.now(UTC) + timedelta(seconds=20)
    verifier.body = json.dumps({"valid": True, "expires_at": soon.isoformat()}).encode()
    card = AuthCard("opaque-token", verifier.url)
    await check(card)
    verifier.refuse()
    monkeypatch.setattr(verdicts.time, "time", lambda: soon.timestamp() + 1)
    with pytest.raises(CardRefused):
        await check(card)


async def test_a_no_is_asked_again(check, verifier, bad):
    with pytest.raises(CardRefused):
        await check(bad)
    verifier.status, verifier.body = 200, b'{"valid": true}'
    await check(bad)


async def test_after_silence_the_server_is_asked_again(check, verifier, good):
    verifier.status = 503
    with pytest.raises(CardUnverified):
        await check(good)
    verifier.status = 200
    await check(good)


async def test_those_who_come_at_the_same_time_ask_once(verifier, good):
    verifier.let_go.clear()
    with ThreadPoolExecutor(5) as pool:
        threads = [pool.submit(good.check) for _ in range(5)]
        tasks = [asyncio.create_task(good.acheck()) for _ in range(45)]
        await asyncio.to_thread(verifier.came.acquire)
        verifier.let_go.set()
        await asyncio.gather(*tasks, *map(asyncio.wrap_future, threads))
    assert len(verifier.asked) == 1


async def test_whoever_stops_waiting_does_not_stop_the_others(verifier, good):
    verifier.let_go.clear()
    first, second = (asyncio.create_task(good.acheck()) for _ in range(2))
    await asyncio.to_thread(verifier.came.acquire)
    first.cancel()
    verifier.let_go.set()
    await second
    assert first.cancelled()
    assert len(verifier.asked) == 1


async def test_the_event_loop_goes_on_meanwhile(verifier, good):
    verifier.let_go.clear()
    waiting = asyncio.create_task(good.acheck())
    await asyncio.to_thread(verifier.came.acquire)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    verifier.let_go.set()
    await waiting


def test_one_card_serves_several_event_loops(verifier, good):
    for _ in range(2):
        asyncio.run(good.acheck())
    good.check()
    assert len(verifier.asked) == 1


async def test_an_answer_that_never_comes_is_not_waited_for(check, good, monkeypatch):
    monkeypatch.setattr(verdicts, "_GRACE", -4.9)
    ended = threading.Event()
    monkeypatch.setattr(verdicts.Verdicts, "_ask", lambda *_: ended.wait(60))
    with pytest.raises(CardUnverified, match="did not answer"):
        await check(good)
    ended.set()


async def test_when_nobody_can_be_asked_it_is_no_yes_and_the_next_may_ask(
    check, verifier, good, monkeypatch
):
    with monkeypatch.context() as patched:

        def no_loop(steps):
            steps.close()
            raise OSError("too many open files")

        patched.setattr(verdicts.asyncio, "run", no_loop)
        with pytest.raises(OSError, match="too many open files"):
            await check(good)
    await check(good)
    assert len(verifier.asked) == 1


async def test_what_is_remembered_is_bounded(verifier, good, monkeypatch):
    monkeypatch.setattr(verdicts, "MAX_REMEMBERED", 2)
    for name in ("one", "two", "three", "three", "one"):
        assert await good.averify_access_token(token=name)
    tokens = [credential for _, credential in verifier.asked]
    assert tokens == ["Bearer one", "Bearer two", "Bearer three", "Bearer one"]


def test_the_call_of_the_guide_says_yes_or_no(server, token):
    card = AuthCard(token(), server)
    url = f"{server}/verify-token"
    assert card.verify_access_token(token=token("bob"), api_url=url) is True
    assert card.verify_access_token(token="your_token_there", api_url=url) is False
    assert card.verify_access_token(token=token(lifetime=-5), api_url=url) is False
    assert card.verify_access_token(token="no\nheader", api_url=url) is False
    assert card.verify_access_token() is True


async def test_the_same_call_awaited_says_the_same(server, token):
    card = AuthCard(token(), server)
    assert await card.averify_access_token() is True
    assert await card.averify_access_token(token="your_token_there") is False


def test_the_call_of_the_guide_says_why_it_cannot_say(server, token):
    card = AuthCard(token(), server)
    with pytest.raises(CardUnverified):
        card.verify_access_token(token=token(), api_url=f"{server}/nowhere")
    with pytest.raises(BadCard):
        card.verify_access_token(token=token(), api_url="http://example.com/verify-token")


NOWHERE = "https://127.0.0.1:1"
ISSUER = "https://login.example.com"


class Issuer:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        shown = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        self.jwks = json.dumps({"keys": [shown | {"kid": "k1", "alg": "ES256"}]})

    def sign(self, *, lifetime=60, typ="at+jwt", **claims):
        claims = {"sub": "alice", "exp": int(time.time()) + lifetime, **claims}
        return jwt.encode(claims, self.key, "ES256", headers={"kid": "k1", "typ": typ})


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture
def jwks_file(issuer, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(issuer.jwks)
    return path


async def test_keys_of_a_file_verify_and_nobody_is_asked(check, issuer, jwks_file):
    keys = LocalKeys(jwks_file=jwks_file, issuer=ISSUER, audience="agents")
    await check(AuthCard(issuer.sign(iss=ISSUER, aud="agents"), NOWHERE, keys=keys))
    for wrong in ({"iss": "https://other.example.com", "aud": "agents"}, {"iss": ISSUER}):
        with pytest.raises(CardRefused, match="the keys do not verify"):
            await check(AuthCard(issuer.sign(**wrong), NOWHERE, keys=keys))


async def test_keys_of_a_url_are_fetched(check, issuer, verifier):
    verifier.body = issuer.jwks.encode()
    keys = LocalKeys(jwks_url=f"{verifier.url}/jwks.json")
    await check(AuthCard(issuer.sign(), NOWHERE, keys=keys))
    assert verifier.asked[0] == ("/jwks.json", None)
    with pytest.raises(CardRefused):
        await check(AuthCard(Issuer().sign(), NOWHERE, keys=keys))


async def test_keys_that_cannot_be_fetched_verify_nothing(check, issuer, verifier):
    verifier.status = 500
    keys = LocalKeys(jwks_url=f"{verifier.url}/jwks.json")
    with pytest.raises(CardUnverified, match="cannot be verified: the keys of jwks_url"):
        await check(AuthCard(issuer.sign(), NOWHERE, keys=keys))


async def test_keys_that_do_not_come_in_time_verify_nothing(check, issuer, verifier):
    verifier.let_go.clear()
    keys = LocalKeys(jwks_url=f"{verifier.url}/jwks.json")
    with pytest.raises(CardUnverified, match="could not be had within"):
        await check(AuthCard(issuer.sign(), NOWHERE, keys=keys, timeout=0.2))


async def test_the_issuers_metadata_name_its_keys(check, issuer, verifier):
    verifier.status = 404
    keys = LocalKeys(issuer=verifier.url)
    with pytest.raises(CardUnverified, match=f"the keys of {verifier.url}"):
        await check(AuthCard(issuer.sign(iss=verifier.url), NOWHERE, keys=keys))
    assert verifier.asked[0][0].startswith("/.well-known/")


async def test_a_key_that_is_given_verifies(check, token):
    secret = LocalKeys(key="Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6", algorithm="HS256")
    await check(AuthCard(token(), NOWHERE, keys=secret))
    assert "Zk3vJ9" not in repr(secret)


async def test_with_keys_too_a_token_expires(check, issuer, jwks_file, monkeypatch):
    card = AuthCard(issuer.sign(lifetime=-1), NOWHERE, keys=LocalKeys(jwks_file=jwks_file))
    with pytest.raises(CardExpired):
        await check(card)
    # Also where it is the verifier that finds it out.
    monkeypatch.setattr(verdicts, "check_expiry", lambda _: None)
    with pytest.raises(CardExpired, match="has expired"):
        await check(card)


async def test_keys_are_for_the_cards_own_server(issuer, jwks_file, verifier):
    card = AuthCard(issuer.sign(), NOWHERE, keys=LocalKeys(jwks_file=jwks_file))
    assert await card.averify_access_token()
    verifier.refuse()
    assert not await card.averify_access_token(api_url=verifier.url)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "expected one of"),
        ({"jwks_url": "https://a.example.com", "jwks_file": "a"}, "expected one of"),
        ({"key": "x"}, "needs its algorithm"),
        ({"key": "short", "algorithm": "HS256"}, "keys: key: the secret"),
        ({"key": "x", "algorithm": "none"}, "keys: "),
        ({"jwks_file": "/no/such/file"}, "keys: /no/such/file"),
        ({"jwks_url": "https://a.example.com", "token_type": ""}, "keys: token_type"),
    ],
)
async def test_keys_that_are_none_are_told(check, issuer, keys, told):
    with pytest.raises(BadCard, match=told):
        await check(AuthCard(issuer.sign(), NOWHERE, keys=LocalKeys(**keys)))
