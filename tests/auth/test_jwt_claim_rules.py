"""R19 to R23 and R93: typed claims, under a clock that stands still."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.errors import NotAuthenticated

NOW = 1_800_000_000
REQUEST = HTTPConnection({"type": "http", "headers": []})


def refusal(desk: Any, **claims: Any) -> tuple[str, str]:
    with pytest.raises(NotAuthenticated) as caught:
        desk.auth.verify(desk.write(desk.claims(**claims)))
    assert caught.value.token_sent
    return caught.value.reason, str(caught.value)


def reason(desk: Any, **claims: Any) -> str:
    code, text = refusal(desk, **claims)
    assert text == "Could not validate credentials"
    return code


def user_id(desk: Any, **claims: Any) -> str:
    return str(desk.auth.verify(desk.write(desk.claims(**claims))).id)


async def test_the_whole_payload_becomes_the_claims(desk: Any) -> None:
    token = desk.write(desk.claims(roles=["admin"], username="alice a."))
    bearer = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
    principal = await desk.auth.authenticate(REQUEST, Response(), bearer)
    assert principal.id == "alice"
    assert principal.claims == {
        "user_id": "alice",
        "roles": ["admin"],
        "username": "alice a.",
        "exp": NOW + 3600,
    }


async def test_without_a_credential_nobody_is_authenticated(desk: Any) -> None:
    with pytest.raises(NotAuthenticated, match=r"^Not authenticated$") as caught:
        await desk.auth.authenticate(REQUEST, Response(), None)
    assert caught.value.token_sent is False
    assert caught.value.reason == "missing"
    assert desk.auth.credential_required
    assert desk.auth.security_scheme == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
    }


def test_r19_a_token_without_exp_is_refused(desk: Any) -> None:
    assert reason(desk, exp=...) == "exp_missing"


BAD_TIMES = [None, True, False, "1800003600", "", [NOW], {}, -1, -0.5, 1e11, 10**12]


@pytest.mark.parametrize("value", BAD_TIMES)
def test_r19_exp_is_a_sane_number(desk: Any, value: Any) -> None:
    assert reason(desk, exp=value) == "bad_exp"


def test_r19_r93_at_exp_a_token_has_expired(desk: Any) -> None:
    expired = ("expired", "Token has expired")
    assert refusal(desk, exp=NOW) == expired
    assert refusal(desk, exp=NOW - 1) == expired
    assert refusal(desk, exp=0) == expired
    assert user_id(desk, exp=NOW + 1) == "alice"
    assert user_id(desk, exp=NOW + 0.25) == "alice"
    assert user_id(desk, exp=1e11 - 1) == "alice"


def test_r19_expiry_has_no_leeway(open_desk: Callable[..., Any]) -> None:
    desk = open_desk(leeway=60.0)
    assert refusal(desk, exp=NOW) == ("expired", "Token has expired")


def test_only_a_token_that_was_good_is_called_expired(
    desk: Any, open_desk: Callable[..., Any]
) -> None:
    message, _, signature = desk.write(desk.claims(exp=1)).rpartition(".")
    with pytest.raises(NotAuthenticated, match=r"^Could not validate credentials$"):
        desk.auth.verify(f"{message}.{'A' + signature[1:]}")
    assert reason(desk, exp=1, user_id="") == "bad_user_id"
    assert reason(open_desk(issuer="us"), exp=1, iss="them") == "issuer_mismatch"


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize("value", BAD_TIMES)
def test_r20_nbf_and_iat_are_sane_numbers(desk: Any, name: str, value: Any) -> None:
    assert reason(desk, **{name: value}) == f"bad_{name}"


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_r20_r93_a_clock_may_be_ahead_by_the_leeway(
    name: str, desk: Any, open_desk: Callable[..., Any]
) -> None:
    assert user_id(desk, **{name: NOW}) == "alice"
    assert user_id(desk, **{name: NOW + 5}) == "alice"
    assert reason(desk, **{name: NOW + 5.5}) == "not_yet_valid"
    assert reason(desk, **{name: NOW + 6}) == "not_yet_valid"
    strict = open_desk(leeway=0.0)
    assert user_id(strict, **{name: NOW}) == "alice"
    assert reason(strict, **{name: NOW + 1}) == "not_yet_valid"
    patient = open_desk(leeway=60.0)
    assert user_id(patient, **{name: NOW + 60}) == "alice"
    assert reason(patient, **{name: NOW + 61}) == "not_yet_valid"


def test_r20_the_later_of_nbf_and_iat_counts(desk: Any) -> None:
    assert reason(desk, nbf=NOW - 60, iat=NOW + 6) == "not_yet_valid"
    assert reason(desk, nbf=NOW + 6, iat=NOW - 60) == "not_yet_valid"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("alice", "alice"),
        ("a" * 256, "a" * 256),
        (42, "42"),
        (0, "0"),
        (-7, "-7"),
        ("al\u00efce", "al\u00efce"),
        ("auth0|5f7c8ec7", "auth0|5f7c8ec7"),
    ],
)
def test_r22_a_user_id_is_text_or_an_integer(desk: Any, value: Any, found: str) -> None:
    principal = desk.auth.verify(desk.write(desk.claims(user_id=value)))
    assert principal.id == found
    assert principal.claims["user_id"] == found


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "\u00a0",
        "a" * 257,
        "alice\n",
        "ali\x1bce",
        "ali\x7fce",
        "ali\u202ece",
        "ali\u2028ce",
        True,
        False,
        1.0,
        [],
        ["alice"],
        {"id": "alice"},
    ],
)
def test_r22_anything_else_is_no_user_id(desk: Any, value: Any) -> None:
    assert reason(desk, user_id=value) == "bad_user_id"
    assert reason(desk, user_id=..., sub=value) == "bad_user_id"


def test_r22_the_user_is_user_id_else_sub(desk: Any) -> None:
    assert user_id(desk, user_id="alice", sub="bob") == "alice"
    assert user_id(desk, user_id=..., sub="bob") == "bob"
    assert reason(desk, user_id=...) == "bad_user_id"
    assert reason(desk, user_id=None, sub="bob") == "bad_user_id"


def test_r22_a_configured_claim_is_the_only_one(open_desk: Callable[..., Any]) -> None:
    desk = open_desk(user_id_claim="email")
    principal = desk.auth.verify(desk.write(desk.claims(email="bob@example.com")))
    assert principal.id == "bob@example.com"
    assert principal.claims["user_id"] == "bob@example.com"
    assert reason(desk, sub="bob") == "bad_user_id"


def test_r22_jti_is_a_string(desk: Any) -> None:
    assert user_id(desk, jti=str(uuid.UUID(int=1))) == "alice"
    for value in (None, 1, True, [], {}):
        assert reason(desk, jti=value) == "bad_jti"


def test_r23_the_issuer_is_compared_exactly(open_desk: Callable[..., Any]) -> None:
    desk = open_desk(issuer="https://issuer.example")
    assert user_id(desk, iss="https://issuer.example") == "alice"
    for value in (
        ...,
        None,
        "",
        "https://issuer.example/",
        "HTTPS://ISSUER.EXAMPLE",
        "https://issuer",
        ["https://issuer.example"],
        1,
    ):
        assert reason(desk, iss=value) == "issuer_mismatch"


def test_r23_one_audience_of_ours_is_enough(open_desk: Callable[..., Any]) -> None:
    desk = open_desk(audience=frozenset({"api", "api2"}))
    for value in ("api", "api2", ["api"], ["other", "api2"]):
        assert user_id(desk, aud=value) == "alice"
    for value in (..., "", "ap", "api3", "API", "api ", [], ["ap", "i"], "api,api2"):
        assert reason(desk, aud=value) == "audience_mismatch"
    for value in (None, 0, True, {}, {"api": 1}, [None], ["api", 1], [["api"]]):
        assert reason(desk, aud=value) == "bad_aud"


@pytest.mark.parametrize("aud", ["api", ["api"], "", 0, {}, [], None, False])
def test_r23_an_audience_nobody_configured_is_refused_with_a_hint(
    desk: Any, aud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert reason(desk, aud=aud) == "audience_not_configured"
    assert caplog.messages == [
        (
            "refused a token that is meant for a certain audience (`aud`): to accept it, name that "
            "audience in JWT_AUDIENCE, or as `audience` of this method in agentflow.json"
        )
    ]


def test_whatever_breaks_in_verification_is_a_refusal(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*args: object) -> None:
        raise AttributeError("a library's surprise")

    token = desk.write()
    monkeypatch.setattr("agentflow_server.auth.jwt.open_token", explode)
    with pytest.raises(NotAuthenticated) as caught:
        desk.auth.verify(token)
    assert caught.value.reason == "unverifiable"
