"""R25: Project Wycheproof's vectors for signatures and keys, with the verdicts corrected by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from agentflow_server.auth.jwks import parse_jwks
from agentflow_server.auth.key_set import KeySet
from agentflow_server.auth.keys import SECRET_BYTES, VerifyingKey, find_weakness
from agentflow_server.auth.token import open_token
from agentflow_server.errors import ConfigError, NotAuthenticated

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "wycheproof"


def read(name: str) -> dict[str, Any]:
    path = VECTORS / name
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


OVERRIDES = read("overrides.json").get("overrides", {})
VERDICTS = {"valid": "accept", "invalid": "reject", "accept": "accept", "reject": "reject"}

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="the Wycheproof vectors are not at hand")


def signature_cases() -> list[Any]:
    return [
        pytest.param(
            group.get("public", group["private"]),
            case["jws"],
            VERDICTS[OVERRIDES.get(str(case["tcId"]), {}).get("use", case["result"])],
            id=f"{case['tcId']}-{case['comment']}",
        )
        for group in read("json_web_signature_test.json").get("testGroups", [])
        for case in group["tests"]
    ]


def key_cases() -> list[Any]:
    return [
        pytest.param(
            group.get("public", group["private"])["keys"],
            case["jws"],
            VERDICTS[case["result"]],
            id=f"{case['tcId']}-{case['comment']}",
        )
        for group in read("json_web_key_test.json").get("testGroups", [])
        for case in group["tests"]
    ]


def open_keys(jwks: list[dict[str, Any]], *, judge_secret: bool) -> KeySet:
    """As an operator would configure them: secrets one by one, public keys as a key set.

    Raises ConfigError, ValueError, and what PyJWK raises.
    """
    if any(jwk["kty"] != "oct" for jwk in jwks):
        return parse_jwks(json.dumps({"keys": jwks}).encode())
    return KeySet(open_secret(jwk, judge_secret=judge_secret) for jwk in jwks)


def open_secret(jwk: dict[str, Any], *, judge_secret: bool) -> VerifyingKey:
    if jwk["alg"] not in SECRET_BYTES:
        raise ConfigError("not an algorithm for signatures")
    secret = PyJWK(jwk, algorithm=jwk["alg"]).key
    if judge_secret and find_weakness(secret, jwk["alg"]):
        raise ConfigError("a weak secret")
    return VerifyingKey(jwk["alg"], secret, jwk["kid"])


def verdict(jwks: list[dict[str, Any]], token: str, *, judge_secret: bool = False) -> str:
    try:
        open_token(token, open_keys(jwks, judge_secret=judge_secret))
    except (NotAuthenticated, ConfigError, PyJWTError, ValueError):
        return "reject"
    return "accept"


@pytest.mark.parametrize(("jwk", "token", "expected"), signature_cases())
def test_r25_signatures(jwk: dict[str, Any], token: str, expected: str) -> None:
    if jwk.get("alg", "").startswith("PS"):
        expected = "reject"  # not one of the nine algorithms, so no key can be opened for it
    assert verdict([jwk], token) == expected


@pytest.mark.parametrize(("keys", "token", "expected"), key_cases())
def test_r25_keys(keys: list[dict[str, Any]], token: str, expected: str) -> None:
    assert verdict(keys, token, judge_secret=True) == expected
