"""Verified tokens are remembered for a minute, never longer than they are good, never failures."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from agentflow_server.auth import cache
from agentflow_server.auth.cache import TokenCache, VerifiedToken
from agentflow_server.auth.keys import VerifyingKey
from agentflow_server.errors import NotAuthenticated
from agentflow_server.models import Principal

NOW = 1_800_000_000.0
ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The signatures that were really checked."""
    checked: list[bytes] = []
    original = VerifyingKey.verify

    def verify(self: VerifyingKey, message: bytes, signature: bytes) -> bool:
        checked.append(signature)
        return original(self, message, signature)

    monkeypatch.setattr(VerifyingKey, "verify", verify)
    return checked


def test_the_signature_of_a_repeated_token_is_checked_once_a_minute(
    desk: Any, verifications: list[bytes]
) -> None:
    token = desk.write()
    for second in (0, 1, 59):
        desk.clock.now = NOW + second
        assert desk.auth.verify(token).id == "alice"
    assert len(verifications) == 1
    desk.clock.now = NOW + 60
    assert desk.auth.verify(token).id == "alice"
    assert len(verifications) == 2


def test_r93_a_remembered_token_expires_on_the_second(desk: Any) -> None:
    token = desk.write(desk.claims(exp=int(NOW) + 10))
    desk.auth.verify(token)
    desk.clock.now = NOW + 9.9
    assert desk.auth.verify(token).id == "alice"
    desk.clock.now = NOW + 10
    with pytest.raises(NotAuthenticated, match=r"^Token has expired$"):
        desk.auth.verify(token)


def test_r93_a_remembered_token_is_refused_when_the_clock_is_set_back(desk: Any) -> None:
    token = desk.write(desk.claims(nbf=int(NOW)))
    desk.auth.verify(token)
    desk.clock.now = NOW - 6
    with pytest.raises(NotAuthenticated) as caught:
        desk.auth.verify(token)
    assert caught.value.reason == "not_yet_valid"


def test_r24_a_failure_is_not_remembered(desk: Any, verifications: list[bytes]) -> None:
    early = desk.write(desk.claims(nbf=int(NOW) + 30))
    for _ in range(2):
        with pytest.raises(NotAuthenticated):
            desk.auth.verify(early)
    assert len(verifications) == 2
    desk.clock.now = NOW + 30
    assert desk.auth.verify(early).id == "alice"


def test_r24_a_twin_of_a_remembered_token_is_judged_by_itself(
    open_desk: Callable[..., Any], verifications: list[bytes]
) -> None:
    desk = open_desk("ES256")
    desk.auth.verify(desk.write())
    desk.auth.verify(desk.write())
    assert len(set(verifications)) == 2, "ECDSA signs differently each time"


def test_r24_the_twin_of_a_signature_is_the_same_token(
    open_desk: Callable[..., Any], encode: Callable[[bytes], str]
) -> None:
    """(r, n - s) verifies as well as (r, s): what was revoked by its text would live on."""
    desk = open_desk("ES256")
    token = desk.write(desk.claims(jti="t1"))
    message, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other_s = ORDER_OF_P256 - int.from_bytes(raw[32:])
    twin = f"{message}.{encode(raw[:32] + other_s.to_bytes(32))}"
    assert twin != token
    assert desk.auth.verify(twin).token_id == desk.auth.verify(token).token_id == "t1"


def test_r48_claims_are_fresh_for_each_request(desk: Any) -> None:
    token = desk.write(desk.claims(roles=["user"]))
    first = desk.auth.verify(token)
    first.claims["roles"].append("admin")
    first.claims["user_id"] = "mallory"  # type: ignore[index]
    assert desk.auth.verify(token).claims["roles"] == ["user"]
    assert desk.auth.verify(token).claims["user_id"] == "alice"


def test_two_keys_share_nothing(open_desk: Callable[..., Any]) -> None:
    hmac_desk, ecdsa_desk = open_desk("HS256"), open_desk("ES256")
    token = hmac_desk.write()
    assert hmac_desk.auth.verify(token).id == "alice"
    with pytest.raises(NotAuthenticated):
        ecdsa_desk.auth.verify(token)


def good(user_id: str) -> VerifiedToken:
    return VerifiedToken(b"{}", Principal(user_id), valid_from=0, valid_until=NOW + 3600)


def test_r87_a_full_cache_forgets_the_oldest() -> None:
    tokens = TokenCache(max_entries=3)
    for name in "abcd":
        tokens.remember(name, good(name), NOW)
    assert tokens.find("a", NOW) is None
    assert [tokens.find(name, NOW) for name in "bcd"] == [good("b"), good("c"), good("d")]


def test_r87_a_very_long_token_is_not_kept() -> None:
    tokens = TokenCache()
    long = "x" * (cache.MAX_CACHED_TOKEN + 1)
    tokens.remember(long, good("alice"), NOW)
    tokens.remember(long[:-1], good("bob"), NOW)
    assert tokens.find(long, NOW) is None
    assert tokens.find(long[:-1], NOW) == good("bob")
