"""R1 to R5: keys that would be no good stop the server, and never show themselves."""

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from agentflow_server.auth.keys import ALGORITHMS, load_key
from agentflow_server.errors import ConfigError

GOOD = "Zm9v-Yn2qRk8wTq0xLh3vBc6dPs1uEj9gXa4oMi7yKf5tWr-QzHlNbVe-J2sD8pGc"
SPKI = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def refusal(text: str, algorithm: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_key(text, algorithm, **options)
    message = str(caught.value)
    assert message.startswith("JWT_SECRET_KEY: ")
    assert len(text.strip()) < 4 or text.strip() not in message
    return message


def public_pem(key: Any) -> str:
    return str(key.public_key().public_bytes(*SPKI).decode())


@pytest.mark.parametrize(("algorithm", "minimum"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_r1_a_secret_shorter_than_its_hash_is_refused(algorithm: str, minimum: int) -> None:
    message = refusal(GOOD[: minimum - 1], algorithm)
    assert f"{minimum - 1} bytes" in message
    assert "agentflow secret" in message
    assert load_key(GOOD[:minimum], algorithm).material == GOOD[:minimum].encode()


def test_r1_bytes_are_counted_not_characters() -> None:
    assert load_key("äöüßéèêëñçåøæœžšřů", "HS256").algorithm == "HS256"


@pytest.mark.parametrize(
    "secret",
    [
        "your-secret-key",
        "test-secret",
        "supersecretkey",
        "your-256-bit-secret",
        "Your-Secret-Key-0123456789-abcdefghijkl",
        "change-me-please-0123456789-abcdefghijkl",
        "171d7a898dfcd817742364fac151dfce7328f0c88b720909279627ec5cd93197",
        "171D7A898DFCD817742364FAC151DFCE7328F0C88B720909279627EC5CD93197",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "a-string-secret-at-least-256-bits-long",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
    ],
)
def test_r2_a_published_secret_is_refused(secret: str) -> None:
    message = refusal(secret, "HS256")
    assert "known to everybody" in message
    assert "agentflow secret" in message


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("a" * 64, "different bytes"),
        ("abcdefg" * 10, "different bytes"),
        ("0123456789" * 7, "repeats"),
        ("0123456789abcdef" * 4, "repeats"),
        ("", "empty"),
        (" \t\n ", "empty"),
        (f" {GOOD}", "white space"),
        (f"{GOOD}\n", "white space"),
        (f"{GOOD}\udcff", "not UTF-8"),
    ],
)
def test_r2_a_secret_without_substance_is_refused(secret: str, why: str) -> None:
    assert why in refusal(secret, "HS256")


def test_r2_a_good_secret_may_begin_and_end_alike() -> None:
    secret = GOOD[:31] + GOOD[0]
    assert load_key(secret, "HS256").material == secret.encode()


def test_a_weak_secret_can_be_allowed_but_never_an_empty_one_or_a_key(
    pair: Callable[[str], Any],
) -> None:
    assert load_key("test-secret", "HS256", allow_weak_secret=True).material == b"test-secret"
    for text in ("", " test-secret", pair("RS256").text):
        refusal(text, "HS256", allow_weak_secret=True)


def test_the_message_names_the_variable_that_held_the_secret() -> None:
    with pytest.raises(ConfigError, match=r"^MY_KEY: the secret has 6 bytes"):
        load_key("abcdef", "HS256", variable="MY_KEY")


def forms_of_a_public_key() -> dict[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pkcs1 = public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    pem = public_pem(key)
    locked = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(public)
    return {
        "pem": pem,
        "pem in one line": pem.replace("\n", "\\n"),
        "private pem": key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        ).decode(),
        "pem in base64": base64.b64encode(pem.encode()).decode(),
        "der in base64": base64.b64encode(der).decode(),
        "der in base64url": base64.urlsafe_b64encode(der).rstrip(b"=").decode(),
        "der in hex": der.hex(),
        "body of a pem": "\n".join(pem.splitlines()[1:-1]),
        "pkcs1 in base64": base64.b64encode(pkcs1).decode(),
        "encrypted der": base64.b64encode(locked).decode(),
        "openssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        "jwk": jwk,
        "jwks": json.dumps({"keys": [json.loads(jwk)]}),
    }


@pytest.mark.parametrize(("form", "text"), forms_of_a_public_key().items())
def test_r3_an_asymmetric_key_is_no_hmac_secret(form: str, text: str) -> None:
    message = refusal(text, "HS256", allow_weak_secret=True)
    assert "HS256 wants a shared secret" in message, form
    assert "JWT_ALGORITHM" in message


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"])
@pytest.mark.parametrize("one_line", [False, True])
def test_r3_a_public_pem_is_taken(
    algorithm: str, one_line: bool, pair: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    keys = pair(algorithm)
    text = keys.text.replace("\n", "\\n") if one_line else f"\n{keys.text}\n"
    key = load_key(text, algorithm)
    assert key.verify(b"message", keys.sign(b"message"))
    assert not caplog.records


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512"])
@pytest.mark.parametrize("line_break", ["\n", "\\n", "\r\n", "\\r\\n"])
def test_r3_of_a_private_pem_the_public_half_is_kept_with_one_warning(
    algorithm: str,
    line_break: str,
    pair: Callable[[str], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = pair(algorithm)
    key = load_key(keys.private_text.replace("\n", line_break), algorithm)
    assert key.verify(b"message", keys.sign(b"message"))
    assert not hasattr(key.material, "private_numbers")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "JWT_SECRET_KEY" in caplog.text
    assert keys.private_text.splitlines()[1] not in caplog.text


@pytest.mark.parametrize(
    ("private_format", "label"),
    [
        (PrivateFormat.TraditionalOpenSSL, "EC PRIVATE KEY"),
        (PrivateFormat.PKCS8, "PRIVATE KEY"),
    ],
)
def test_r3_the_formats_openssl_writes_are_read(
    private_format: PrivateFormat, label: str, pair: Callable[[str], Any]
) -> None:
    keys = pair("ES256")
    pem = keys.signing.private_bytes(Encoding.PEM, private_format, NoEncryption()).decode()
    parameters = (
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        if label == "EC PRIVATE KEY"
        else ""
    )
    assert label in pem
    assert load_key(parameters + pem, "ES256").verify(b"m", keys.sign(b"m"))


@pytest.mark.parametrize(
    ("owner", "algorithm", "why"),
    [
        ("ES256", "RS256", "RS256 wants an RSA key"),
        ("RS256", "ES256", "ES256 wants an EC key"),
        ("ES384", "ES256", "secp256r1, it is on secp384r1"),
        ("ES256", "ES512", "secp521r1, it is on secp256r1"),
    ],
)
def test_r3_r5_a_key_of_another_algorithm_is_refused(
    owner: str, algorithm: str, why: str, pair: Callable[[str], Any]
) -> None:
    assert why in refusal(pair(owner).text, algorithm)


def test_r3_other_kinds_of_keys_are_refused() -> None:
    assert "found Ed25519PublicKey" in refusal(
        public_pem(ed25519.Ed25519PrivateKey.generate()), "ES256"
    )


def test_r3_what_is_no_single_readable_pem_key_is_refused(pair: Callable[[str], Any]) -> None:
    good = pair("RS256").text
    locked = pair("ES256").signing.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    for text, why in (
        (GOOD, "found none"),
        ("", "found none"),
        (good + good, "found 2"),
        (good.replace("MII", "M\xffI"), "cannot be read"),
        (locked.decode(), "encrypted"),
    ):
        assert why in refusal(text, "RS256")


@pytest.mark.parametrize(
    "name", ["none", "None", "hs256", "HS256 ", "PS256", "EdDSA", "ES256K", ""]
)
def test_r4_an_unknown_algorithm_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^JWT_ALGORITHM: expected one of HS256"):
        load_key(GOOD, name)


def test_r4_one_key_verifies_with_one_algorithm_only(pair: Callable[[str], Any]) -> None:
    assert len(ALGORITHMS) == 9
    keys = pair("RS256")
    signature = keys.sign(b"message", "RS512")
    assert not load_key(keys.text, "RS256").verify(b"message", signature)
    assert load_key(keys.text, "RS512").verify(b"message", signature)


@pytest.mark.parametrize(
    ("bits", "exponent", "why"), [(1024, 65537, "1024 bits"), (2048, 3, "exponent 3")]
)
def test_r5_a_weak_rsa_key_is_refused(bits: int, exponent: int, why: str) -> None:
    assert why in refusal(public_pem(rsa.generate_private_key(exponent, bits)), "RS256")


def test_r5_rsa_with_2048_bits_is_enough(pair: Callable[[str], Any]) -> None:
    assert load_key(pair("RS256").text, "RS256").material.key_size == 2048  # type: ignore[union-attr]


def test_r8_a_key_never_shows_itself(pair: Callable[[str], Any]) -> None:
    assert GOOD not in repr(load_key(GOOD, "HS256"))
    assert repr(load_key(GOOD, "HS256")) == "VerifyingKey(algorithm='HS256')"


def test_the_pairs_of_these_tests_are_what_they_claim(pair: Callable[[str], Any]) -> None:
    public = load_pem_public_key(pair("ES384").text.encode())
    private = load_pem_private_key(pair("ES384").private_text.encode(), None)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert private.public_key() == public
