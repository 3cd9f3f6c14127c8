"""What an operator is told of a token: each reason has its rule and its setting."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow_server import auth as auth_package
from agentflow_server.auth.explain import REASONS, explain
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.key_set import FixedKeys, KeySet
from agentflow_server.auth.keys import load_key
from agentflow_server.auth.remote_keys import RemoteKeys

NOW = 1_800_000_000
FRONT = ("token", "claim_rules", "jwt")


async def lines(desk: Any, **claims: Any) -> list[str]:
    explanation = await explain(desk.auth, desk.write(desk.claims(**claims)))
    return list(explanation.lines)


def test_every_reason_of_the_verifier_is_explained() -> None:
    folder = Path(auth_package.__file__).parent
    found: set[str] = set()
    for name in FRONT:
        source = (folder / f"{name}.py").read_text(encoding="utf-8")
        found.update(re.findall(r'reason="(\w+)"', source))
        found.update(re.findall(r'reason=f"bad_\{name\}"', source) and ["bad_exp", "bad_nbf"])
    found -= {"missing", "unverifiable"}
    assert found <= set(REASONS)
    assert set(REASONS) - found <= {"bad_signature", "unknown_key", "alg_not_allowed", "bad_iat"}


async def test_an_accepted_token_shows_whom_it_names(desk: Any) -> None:
    explanation = await explain(
        desk.auth, desk.write(desk.claims(scope="b a", roles=["admin"], jti="t1"))
    )
    assert explanation.accepted
    assert explanation.lines[-4:] == (
        "accepted, unless it was revoked",
        "user id: 'alice'",
        "scopes: 'a', 'b'",
        "roles: 'admin'",
    )
    assert "jti: 't1'" in explanation.lines
    assert f"exp: {NOW + 3600} (2027-01-15 09:00:00 UTC)" in explanation.lines


@pytest.mark.parametrize(
    ("rules", "claims", "expected"),
    [
        ({"issuer": "us"}, {"iss": "them"}, ["R23", "'them'", "'us'", "JWT_ISSUER"]),
        ({}, {"aud": "api"}, ["R23", "'api'", "JWT_AUDIENCE"]),
        ({"audience": frozenset({"api"})}, {"aud": ["x"]}, ["['x']", "'api'"]),
        ({}, {"exp": NOW - 60}, ["expired", "2027-01-15 07:59:00 UTC"]),
        ({}, {"exp": "soon"}, ["bad_exp", "'soon'"]),
        ({}, {"exp": True}, ["bad_exp", "True"]),
        ({}, {"nbf": NOW + 60}, ["not_yet_valid", "5 s", "leeway"]),
        ({"max_age": 60.0}, {"iat": NOW - 61}, ["too_old", "60 s"]),
        ({"max_lifetime": 60.0}, {"iat": NOW}, ["lifetime_too_long", "60 s"]),
        ({"user_id_claim": "email"}, {}, ["'email'", "None", "claims.user_id"]),
        ({}, {"user_id": ...}, ["'sub'", "None"]),
        ({"required": {"tenant": "a"}}, {"tenant": "b"}, ["'tenant'", "'b'", "'a'"]),
        ({}, {"token_use": "id"}, ["R55", "access token"]),
    ],
)
async def test_a_refusal_names_the_rule_the_value_and_the_setting(
    open_desk: Callable[..., Any], rules: Any, claims: Any, expected: list[str]
) -> None:
    desk = open_desk(**rules)
    explanation = await explain(desk.auth, desk.write(desk.claims(**claims)))
    assert not explanation.accepted
    text = "\n".join(explanation.lines[-2:])
    assert text.startswith("refused: ")
    for part in expected:
        assert part in text


async def test_a_refused_header_is_explained(desk: Any) -> None:
    for header, expected in (
        ({"alg": "none"}, ["R9", "'none'", "'HS256'"]),
        ({"typ": "at+jwt"}, ["R14", "'at+jwt'", "'jwt'", "token_type"]),
        ({"crit": []}, ["R12"]),
        ({"kid": 7}, ["R26"]),
    ):
        explanation = await explain(desk.auth, desk.write(header=header))
        text = "\n".join(explanation.lines[-2:])
        for part in expected:
            assert part in text


async def test_a_wrong_key_is_explained(desk: Any, pair: Callable[[str], Any]) -> None:
    keys = KeySet([load_key(pair("RS256").text, "RS256", key_id="new")])
    auth = JwtAuth(FixedKeys(keys), clock=desk.clock)
    other = desk.write(header={"kid": "new"})
    assert "one of 'RS256'" in (await explain(auth, other)).lines[-1]
    desk.pair = pair("RS256")
    unknown = desk.write(header={"kid": "old"})
    assert (
        "the kid 'old' and the alg 'RS256'; known kids: 'new'"
        in ((await explain(auth, unknown)).lines[-1])
    )


@pytest.mark.parametrize("token", ["", "x", "a.b", "e30.e30.", "e30.bm8.e30", "x" * 20_000])
async def test_what_is_no_token_is_explained(desk: Any, token: str) -> None:
    explanation = await explain(desk.auth, token)
    assert not explanation.accepted
    assert explanation.lines[0].startswith("refused: ")


async def test_whatever_breaks_is_a_refusal_here_too(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = desk.write()

    def explode(*args: object, **kwargs: object) -> None:
        raise AttributeError("a library's surprise")

    monkeypatch.setattr("agentflow_server.auth.jwt.open_token", explode)
    explanation = await explain(desk.auth, token)
    assert explanation.lines[-2:] == ("refused", "it cannot be verified")


async def test_keys_that_cannot_be_had_are_told(provider: Any, answer: Any) -> None:
    provider.answers["/realms/shop/keys"] = answer(b"<html>")
    auth = JwtAuth(RemoteKeys(issuer=provider.issuer), clock=time.time)
    await auth.open()
    explanation = await explain(auth, provider.token())
    await auth.close()
    assert not explanation.accepted
    assert explanation.lines[-2] == "not judged: keys_unavailable"
    assert "not valid JSON" in explanation.lines[-1]


async def test_r83_nothing_in_a_token_controls_the_terminal(desk: Any) -> None:
    evil = "\x1b[2J\u202e\nR99 accepted"
    for claims in ({"iss": evil, "aud": evil}, {"sub": evil, "user_id": ..., "jti": evil * 99}):
        explanation = await explain(desk.auth, desk.write(desk.claims(**claims)))
        for line in explanation.lines:
            assert line.isascii()
            assert line.isprintable()
            assert len(line) < 500
