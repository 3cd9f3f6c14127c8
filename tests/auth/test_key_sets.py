"""R4, R26, R53 and rotation: which of several keys a token may have been signed with."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from agentflow_server.auth.jwks import MAX_KEYS, parse_jwks
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.key_set import FixedKeys, KeySet, KeySource
from agentflow_server.auth.keys import VerifyingKey, load_key
from agentflow_server.errors import NotAuthenticated

NOW = 1_800_000_000.0
SECRETS = [f"Zm9v-Yn2qRk8wTq0xLh3vBc6dPs1uEj9gXa{n}" for n in range(3)]


def secret(n: int, key_id: str | None = None) -> VerifyingKey:
    return load_key(SECRETS[n], "HS256", key_id=key_id)


def judge(desk: Any, keys: KeySet, token: str) -> str:
    """The caller, or the reason of the refusal."""
    auth = JwtAuth(FixedKeys(keys), clock=desk.clock)
    try:
        return auth.verify(token).id
    except NotAuthenticated as exc:
        return exc.reason


def hs(desk: Any, n: int, **header: Any) -> str:
    return jwt.encode(desk.claims(), SECRETS[n], "HS256", headers=header)


def test_a_token_without_kid_is_tried_with_each_key_of_its_algorithm(desk: Any) -> None:
    keys = KeySet([secret(0), secret(1, "old")])
    assert judge(desk, keys, hs(desk, 0)) == "alice"
    assert judge(desk, keys, hs(desk, 1)) == "alice"
    assert judge(desk, keys, hs(desk, 2)) == "bad_signature"


def test_the_newest_key_is_tried_first(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    original = VerifyingKey.verify

    def verify(self: VerifyingKey, message: bytes, signature: bytes) -> bool:
        tried.append(self.material)
        return original(self, message, signature)

    monkeypatch.setattr(VerifyingKey, "verify", verify)
    assert judge(desk, KeySet([secret(0), secret(1)]), hs(desk, 1)) == "alice"
    assert tried == [SECRETS[0].encode(), SECRETS[1].encode()]


def test_r26_kid_chooses_its_key_and_no_other(desk: Any) -> None:
    keys = KeySet([secret(0, "new"), secret(1, "old")])
    assert judge(desk, keys, hs(desk, 0, kid="new")) == "alice"
    assert judge(desk, keys, hs(desk, 1, kid="old")) == "alice"
    assert judge(desk, keys, hs(desk, 1, kid="new")) == "bad_signature"
    for stranger in ("NEW", "new ", "", "ne", "../new", "new' OR '1'='1"):
        assert judge(desk, keys, hs(desk, 0, kid=stranger)) == "unknown_key"


def test_an_unknown_kid_may_mean_a_key_that_has_none_here(desk: Any) -> None:
    keys = KeySet([secret(0), secret(1, "old")])
    assert judge(desk, keys, hs(desk, 0, kid="whatever")) == "alice"
    assert judge(desk, keys, hs(desk, 1, kid="whatever")) == "bad_signature"
    assert judge(desk, keys, hs(desk, 0, kid="old")) == "bad_signature"


def test_r4_a_kid_does_not_lend_its_key_to_another_algorithm(
    desk: Any, pair: Callable[[str], Any]
) -> None:
    rsa_pair = pair("RS256")
    keys = KeySet([secret(0), load_key(rsa_pair.text, "RS256", key_id="public")])
    assert judge(desk, keys, hs(desk, 0, kid="public")) == "alg_not_allowed"
    token = jwt.encode(desk.claims(), rsa_pair.signing, "RS256", headers={"kid": "public"})
    assert judge(desk, keys, token) == "alice"
    assert judge(desk, keys, hs(desk, 0)) == "alice"


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^two keys have the same kid$"):
        KeySet([secret(0, "one"), secret(1, "one")])


def test_r24_a_token_of_a_removed_key_is_not_remembered(desk: Any) -> None:
    class Changing(FixedKeys):
        def change(self, keys: KeySet) -> None:
            self._keys = keys

    source = Changing(KeySet([secret(0), secret(1)]))
    auth = JwtAuth(source, clock=desk.clock)
    token = hs(desk, 1)
    assert auth.verify(token).id == "alice"
    source.change(KeySet([secret(0)]))
    with pytest.raises(NotAuthenticated):
        auth.verify(token)


class Rotating(KeySource):
    """Has one key, and another one after `renew`; says what it was asked."""

    def __init__(self, overdue_at: float) -> None:
        self.sets = [KeySet([secret(0)]), KeySet([secret(1)])]
        self.overdue_at = overdue_at
        self.renewed_at: list[float] = []

    def current(self, now: float) -> KeySet:
        return self.sets[0]

    def is_overdue(self, now: float) -> bool:
        return now >= self.overdue_at

    async def renew(self, now: float) -> bool:
        self.renewed_at.append(now)
        return len(self.sets) > 1 and bool(self.sets.pop(0))


async def test_a_token_that_no_key_fits_is_tried_again_with_newer_keys(
    desk: Any, ask: Any, refusal: Any
) -> None:
    source = Rotating(overdue_at=NOW + 60)
    auth = JwtAuth(source, clock=desk.clock)
    assert (await ask(auth, hs(desk, 0))).id == "alice"
    assert source.renewed_at == []
    assert (await ask(auth, hs(desk, 1))).id == "alice"
    assert source.renewed_at == [NOW]
    assert await refusal(auth, hs(desk, 0)) == "bad_signature"
    assert source.renewed_at == [NOW, NOW]
    assert await refusal(auth, "malformed") == "malformed"
    assert source.renewed_at == [NOW, NOW]


async def test_keys_that_are_overdue_are_renewed_before_they_are_used(
    desk: Any, refusal: Any
) -> None:
    source = Rotating(overdue_at=NOW)
    auth = JwtAuth(source, clock=desk.clock)
    assert await refusal(auth, hs(desk, 0)) == "bad_signature"
    assert source.renewed_at == [NOW, NOW]


async def test_fixed_keys_are_never_renewed() -> None:
    source = FixedKeys(KeySet([secret(0)]))
    await source.open()
    assert source.is_overdue(NOW) is False
    assert await source.renew(NOW) is False
    assert source.problems() == ()
    await source.close()


# JSON Web Key Sets


def b64(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_jwk(key: Any, **members: Any) -> dict[str, Any]:
    family: Any = jwt.algorithms.RSAAlgorithm
    if isinstance(key, ec.EllipticCurvePrivateKey):
        family = jwt.algorithms.ECAlgorithm
    if isinstance(key, ed25519.Ed25519PrivateKey):
        family = jwt.algorithms.OKPAlgorithm
    return {**json.loads(family.to_jwk(key.public_key())), **members}


def parse(*jwks: Any, **options: Any) -> KeySet:
    return parse_jwks(json.dumps({"keys": jwks}).encode(), **options)


def names(keys: KeySet) -> list[tuple[str | None, str]]:
    return [(key.key_id, key.algorithm) for key in keys.keys]


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"])
def test_r53_a_key_of_a_set_verifies(desk: Any, algorithm: str, pair: Callable[..., Any]) -> None:
    signing = pair(algorithm).signing
    keys = parse(public_jwk(signing, kid="k", alg=algorithm, use="sig", key_ops=["verify"]))
    assert names(keys) == [("k", algorithm)]
    token = jwt.encode(desk.claims(), signing, algorithm, headers={"kid": "k"})
    assert judge(desk, keys, token) == "alice"


def test_r53_the_alg_of_a_key_binds_it(desk: Any, pair: Callable[..., Any]) -> None:
    signing = pair("RS256").signing
    keys = parse(public_jwk(signing, kid="k", alg="RS256"))
    token = jwt.encode(desk.claims(), signing, "RS512", headers={"kid": "k"})
    assert judge(desk, keys, token) == "alg_not_allowed"


def test_r53_without_alg_an_ec_key_is_for_its_curve_and_an_rsa_key_for_what_is_accepted(
    pair: Callable[..., Any],
) -> None:
    keys = parse(
        public_jwk(pair("ES384").signing, kid="e"),
        public_jwk(pair("RS256").signing, kid="r"),
        algorithms=["RS256", "RS512", "ES384", "HS256"],
    )
    assert names(keys) == [("e", "ES384"), ("r", "RS256"), ("r", "RS512")]
    assert keys.algorithms == {"RS256", "RS512", "ES384"}


def test_r53_keys_that_are_not_for_our_signatures_are_ignored(pair: Callable[..., Any]) -> None:
    signing = pair("RS256").signing
    curve = pair("ES256").signing
    weak = rsa.generate_private_key(65537, 1024)
    keys = parse(
        {"kty": "oct", "kid": "secret", "alg": "HS256", "k": b64(1 << 300)},
        public_jwk(signing, kid="enc", use="enc"),
        public_jwk(signing, kid="null", use=None),
        public_jwk(signing, kid="wrap", key_ops=["wrapKey"]),
        public_jwk(signing, kid="text", key_ops="verify"),
        public_jwk(signing, kid="pss", alg="PS256"),
        public_jwk(signing, kid="hmac", alg="HS256"),
        public_jwk(signing, kid="no alg", alg=None),
        public_jwk(signing, kid=7),
        public_jwk(weak, kid="weak"),
        public_jwk(curve, kid="curve", alg="ES512"),
        public_jwk(curve, kid="moved", crv="P-384"),
        public_jwk(curve, kid="no curve", crv=None),
        public_jwk(ec.generate_private_key(ec.SECP256K1()), kid="koblitz"),
        public_jwk(ed25519.Ed25519PrivateKey.generate(), kid="edwards", alg="EdDSA"),
        {"kty": "RSA", "kid": "empty"},
        {"kty": "RSA", "kid": "garbage", "n": "*", "e": "AQAB"},
        {"kty": "RSA", "kid": "numbers", "n": 5, "e": 3},
        {"kty": "RSA", "kid": "zero", "n": "", "e": ""},
        {"kty": "EC", "crv": "P-256", "kid": "no point", "x": b64(5), "y": b64(7)},
        {"kid": "nothing"},
        "text",
        None,
        public_jwk(signing, kid="good"),
        algorithms=["RS256", "ES256"],
    )
    assert names(keys) == [("good", "RS256")]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"kid": 7}, "its kid is not a string"),
        ({"use": "enc"}, "its use is not sig"),
        ({"key_ops": ["sign"]}, "its key_ops do not name verify"),
        ({"kty": "OKP"}, "it is neither an RSA nor an EC key"),
        ({"alg": "PS256"}, "it is not for one of the accepted algorithms"),
        ({"n": None}, "it has no n"),
        ({"e": "AQ!AB"}, "its e is not base64url"),
        ({"e": ""}, "its numbers are no key"),
        ({"e": "Aw"}, "the RSA key has the public exponent 3, at least 65537 is needed (RS256)"),
    ],
)
def test_r53_the_log_says_why_a_key_is_ignored(
    members: Any, why: str, pair: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    jwk = public_jwk(pair("RS256").signing, kid="k", alg="RS256")
    assert parse({**jwk, **members}).keys == ()
    assert caplog.messages == [f"left a key out of a JSON Web Key Set: {why}"]


def test_a_set_accepts_algorithms_of_which_it_has_no_key_yet(
    desk: Any, pair: Callable[..., Any]
) -> None:
    keys = parse(public_jwk(pair("RS256").signing, kid="r"), algorithms=["RS256", "ES256"])
    assert keys.algorithms == {"RS256", "ES256"}
    signing = pair("ES256").signing
    for headers in (None, {"kid": "e"}):
        token = jwt.encode(desk.claims(), signing, "ES256", headers=headers)
        assert judge(desk, keys, token) == "unknown_key"
    assert judge(desk, keys, jwt.encode(desk.claims(), SECRETS[0], "HS256")) == "alg_not_allowed"


def test_r53_a_private_key_is_used_for_its_public_half_and_reported(
    pair: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    signing = pair("ES256").signing
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(signing))
    keys = parse({**jwk, "kid": "k"})
    assert names(keys) == [("k", "ES256")]
    assert not hasattr(keys.keys[0].material, "private_numbers")
    assert caplog.messages == [
        "a JSON Web Key Set holds a private key, of which only the public half is used"
    ]
    assert jwk["d"] not in caplog.text


def test_r53_a_kid_that_occurs_twice_spoils_the_set(pair: Callable[..., Any]) -> None:
    one, two = pair("RS256").signing, pair("ES256").signing
    with pytest.raises(ValueError, match=r"^two keys of the set have the same kid$"):
        parse(public_jwk(one, kid="k"), public_jwk(two, kid="k"))
    with pytest.raises(ValueError, match="same kid"):
        parse(public_jwk(one, kid="k"), {"kty": "oct", "kid": "k", "k": "AAAA"})
    assert len(parse(public_jwk(one, alg="RS256"), public_jwk(two)).keys) == 2


def test_r52_a_set_has_a_hundred_keys_at_most() -> None:
    filler = [{"kty": "oct", "kid": str(n)} for n in range(MAX_KEYS)]
    assert parse(*filler).keys == ()
    with pytest.raises(ValueError, match="101 keys"):
        parse(*filler, {"kty": "oct"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'{"keys": {}}',
        b'{"keys": null}',
        b"{}",
        b'{"keys": [], "keys": []}',
        b'\xef\xbb\xbf{"keys": []}',
        b'{"keys": [{"kty": "RSA", "n": NaN}]}',
        b'{"keys": ' + b"[" * 30 + b"]" * 30 + b"}",
        b'{"keys": [\xff]}',
        b'{"keys": [123456789012345678901]}',
    ],
)
def test_r52_garbage_is_no_key_set(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several texts
        parse_jwks(data)
    with pytest.raises(ValueError, match=r'^not a JSON Web Key Set: expected {"keys": \[…\]}$'):
        parse_jwks(b"[]")
