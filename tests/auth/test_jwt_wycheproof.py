"""R25: Project Wycheproof's vectors for signatures and keys, with the verdicts corrected by hand."""

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from agentflow_server.auth.keys import SECRET_BYTES, VerifyingKey, find_weakness, load_key
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


def open_key(jwk: dict[str, Any], *, judge_secret: bool) -> VerifyingKey:
    """The key as an operator would configure it. Raises ConfigError and what PyJWK raises."""
    algorithm = jwk["alg"]
    if algorithm not in SECRET_BYTES:
        public = PyJWK(jwk, algorithm=algorithm).key
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return load_key(pem.decode(), algorithm)
    secret = PyJWK(jwk, algorithm=algorithm).key
    if judge_secret and find_weakness(secret, algorithm):
        raise ConfigError("a weak secret")
    return VerifyingKey(algorithm, secret)


def verdict(jwk: dict[str, Any], token: str, *, judge_secret: bool = False) -> str:
    try:
        open_token(token, open_key(jwk, judge_secret=judge_secret))
    except (NotAuthenticated, ConfigError, PyJWTError, ValueError):
        return "reject"
    return "accept"


def is_for_signing(jwk: dict[str, Any]) -> bool:
    """A PEM has neither `use` nor `key_ops`: whoever configures one says that it is for tokens."""
    return jwk.get("use", "sig") == "sig" and "verify" in jwk.get("key_ops", ["verify"])


@pytest.mark.parametrize(("jwk", "token", "expected"), signature_cases())
def test_r25_signatures(jwk: dict[str, Any], token: str, expected: str) -> None:
    if not is_for_signing(jwk):
        pytest.skip("use and key_ops belong to JSON Web Keys, which cannot be configured")
    if jwk["alg"].startswith("PS"):
        expected = "reject"  # not one of the nine algorithms, so no key can be opened for it
    assert verdict(jwk, token) == expected


@pytest.mark.parametrize(("keys", "token", "expected"), key_cases())
def test_r25_keys(keys: list[dict[str, Any]], token: str, expected: str) -> None:
    if len({key["kid"] for key in keys}) < len(keys) or len({key["kty"] for key in keys}) > 1:
        pytest.skip("one key is configured, never a set")
    kid = jwt.get_unverified_header(token)["kid"]
    (jwk,) = [key for key in keys if key["kid"] == kid]
    if not is_for_signing(jwk):
        pytest.skip("use belongs to JSON Web Keys, which cannot be configured")
    assert verdict(jwk, token, judge_secret=True) == expected
