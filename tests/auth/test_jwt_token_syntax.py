"""R9 to R18 and R26: what is refused before any claim is looked at."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt.algorithms
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from agentflow_server.auth.token import MAX_HEADER, MAX_TOKEN, is_compact, peek
from agentflow_server.errors import NotAuthenticated

HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def reason(desk: Any, token: str) -> str:
    """Why the token is refused; the client is told nothing but the constant text."""
    with pytest.raises(NotAuthenticated) as caught:
        desk.auth.verify(token)
    assert str(caught.value) == "Could not validate credentials"
    return caught.value.reason


@pytest.mark.parametrize(
    "algorithm",
    ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"],
)
def test_a_good_token_of_each_algorithm_is_believed(
    algorithm: str, open_desk: Callable[..., Any]
) -> None:
    desk = open_desk(algorithm)
    assert desk.auth.verify(desk.write()).id == "alice"


@pytest.mark.parametrize(
    "alg",
    [
        ...,
        None,
        "",
        "hs256",
        "HS256 ",
        " HS256",
        "HS256\n",
        "HS384",
        "RS256",
        ["HS256"],
        {"HS256": 1},
        256,
        True,
        "\uff28S256",
    ],
)
def test_r9_alg_must_be_the_configured_one_to_the_letter(desk: Any, alg: Any) -> None:
    assert reason(desk, desk.write(header={"alg": alg})) == "alg_not_allowed"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "none "])
def test_r10_none_is_refused_in_every_spelling(
    desk: Any, alg: str, encode: Callable[[bytes], str]
) -> None:
    signed = desk.write(header={"alg": alg})
    assert reason(desk, signed) == "alg_not_allowed"
    assert reason(desk, signed.rpartition(".")[0] + ".") == "malformed"
    assert reason(desk, signed.rpartition(".")[0] + "." + encode(b"none")) == "alg_not_allowed"


def test_r10_an_absent_or_wrong_signature_is_refused(
    desk: Any, encode: Callable[[bytes], str]
) -> None:
    message, _, signature = desk.write().rpartition(".")
    assert reason(desk, message) == "malformed"
    assert reason(desk, message + ".") == "malformed"
    raw = base64.urlsafe_b64decode(signature + "=")
    for wrong in (bytes(32), raw[:-1], raw + b"\0", b"\0" + raw, raw[::-1], b"\0"):
        assert reason(desk, f"{message}.{encode(wrong)}") == "bad_signature"


def forged_secrets(pem: str) -> dict[str, bytes]:
    public = load_pem_public_key(pem.encode())
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    forms = {
        "pem": pem.encode(),
        "pem without its last line break": pem.strip().encode(),
        "der": der,
        "pem in base64": base64.b64encode(pem.encode()),
        "pem in hex": pem.encode().hex().encode(),
        "der in base64": base64.b64encode(der),
        "der in base64url": base64.urlsafe_b64encode(der).rstrip(b"="),
        "der in hex": der.hex().encode(),
        "openssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "nothing": b"",
    }
    if "RSA" in type(public).__name__:
        forms["pkcs1"] = public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
        forms["pkcs1 pem"] = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
        forms["jwk"] = jwt.algorithms.RSAAlgorithm.to_jwk(public).encode()  # type: ignore[arg-type]
        forms["pkcs1 in base64"] = base64.b64encode(forms["pkcs1"])
    else:
        forms["jwk"] = jwt.algorithms.ECAlgorithm.to_jwk(public).encode()  # type: ignore[arg-type]
    return forms


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.parametrize("forged", ["HS256", "HS384", "HS512"])
def test_r11_a_public_key_is_no_hmac_secret(
    algorithm: str, forged: str, open_desk: Callable[..., Any], encode: Callable[[bytes], str]
) -> None:
    desk = open_desk(algorithm)
    header = encode(json.dumps({"alg": forged}).encode())
    message = f"{header}.{encode(json.dumps(desk.claims()).encode())}"
    for form, secret in forged_secrets(desk.pair.text).items():
        mac = hmac.new(secret, message.encode(), HASHES[forged]).digest()
        assert reason(desk, f"{message}.{encode(mac)}") == "alg_not_allowed", form


def test_r11_the_right_key_with_another_algorithm_is_refused(
    open_desk: Callable[..., Any],
) -> None:
    desk = open_desk("RS256")
    message = desk.write(header={"alg": "RS512"}).rpartition(".")[0]
    signature = base64.urlsafe_b64encode(desk.pair.sign(message.encode(), "RS512")).rstrip(b"=")
    assert reason(desk, f"{message}.{signature.decode()}") == "alg_not_allowed"


@pytest.mark.parametrize(
    "member",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"cty": None},
    ],
)
def test_r12_what_changes_how_a_token_is_read_is_refused(desk: Any, member: dict[str, Any]) -> None:
    assert reason(desk, desk.write(header=member)) == "header_not_supported"


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_r13_a_token_cannot_bring_its_own_key(desk: Any, name: str) -> None:
    token = desk.write(header={name: "https://127.0.0.1:1/keys"})
    assert reason(desk, token) == "header_not_supported"


def test_r13_a_key_inside_a_token_does_not_verify_it(
    open_desk: Callable[..., Any], encode: Callable[[bytes], str]
) -> None:
    desk = open_desk("ES256")
    stranger = ec.generate_private_key(ec.SECP256R1())
    public = stranger.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for member in (
        {"jwk": json.loads(jwt.algorithms.ECAlgorithm.to_jwk(public))},
        {"x5c": [base64.b64encode(der).decode()]},
    ):
        header = {"alg": "ES256", **member}
        message = (
            f"{encode(json.dumps(header).encode())}.{encode(json.dumps(desk.claims()).encode())}"
        )
        forged = jwt.algorithms.get_default_algorithms()["ES256"].sign(message.encode(), stranger)
        assert reason(desk, f"{message}.{encode(forged)}") == "header_not_supported"


def test_r13_a_url_in_kid_or_iss_is_only_a_name(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    url = "http://127.0.0.1:1/keys"
    token = desk.write(desk.claims(iss=url), header={"kid": url})
    assert desk.auth.verify(token).claims["iss"] == url


@pytest.mark.parametrize("typ", [..., "JWT", "jwt", "Jwt", "application/jwt", "Application/JWT"])
def test_r14_a_jwt_says_so_or_says_nothing(desk: Any, typ: Any) -> None:
    assert desk.auth.verify(desk.write(header={"typ": typ})).id == "alice"


@pytest.mark.parametrize("typ", [None, "", "JWE", "JWT ", "at+jwt", "text/jwt", 1, ["JWT"], True])
def test_r14_another_type_is_refused(desk: Any, typ: Any) -> None:
    assert reason(desk, desk.write(header={"typ": typ})) == "typ_not_allowed"


def test_r15_a_token_is_three_segments_of_base64url(desk: Any) -> None:
    good = desk.write()
    header, payload, signature = good.split(".")
    for bad in (
        "",
        ".",
        "..",
        "....",
        header,
        f"{header}.{payload}",
        f"{good}.",
        f".{good}",
        f"{good}.{signature}",
        f"{header}.{payload}.{signature}.{signature}.{signature}",
        f".{payload}.{signature}",
        f"{header}..{payload}.{signature}",
        f"{good}=",
        f"{header}=.{payload}.{signature}",
        f"{header}==.{payload}.{signature}",
        f" {good}",
        f"{good} ",
        f"{good}\n",
        good.replace(".", ".\n", 1),
        f"{header[:-1]}+.{payload}.{signature}",
        f"{header[:-1]}/.{payload}.{signature}",
        f"{good[:-1]}\u00e4",
        f"{good[:-1]}\uff21",
        f"{good}\0",
        f"{good},{good}",
        f"Bearer {good}",
        json.dumps({"payload": payload, "protected": header, "signature": signature}),
        json.dumps({"payload": payload, "signatures": [{"signature": signature}]}),
        "\udc80",
    ):
        assert reason(desk, bad) == "malformed", bad


def test_r15_a_segment_has_one_spelling_only(desk: Any) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    good = desk.write()
    assert len(good.rpartition(".")[2]) == 43, "a 32-byte MAC leaves two unused bits"
    for last in alphabet:
        if last != good[-1]:
            assert reason(desk, good[:-1] + last) in {"malformed", "bad_signature"}
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]
    assert base64.urlsafe_b64decode(good.rpartition(".")[2] + "=") == base64.urlsafe_b64decode(
        twin.rpartition(".")[2] + "="
    )
    assert reason(desk, twin) == "malformed"


def test_r15_a_segment_may_end_in_any_letter(open_desk: Callable[..., Any]) -> None:
    desk = open_desk("HS384")  # its signatures fill their last letter
    last_letters = set()
    for n in range(1000):
        token = desk.write(desk.claims(jti=str(n)))
        assert desk.auth.verify(token).id == "alice"
        last_letters.add(token[-1])
    assert len(last_letters) == 64


def test_r15_a_length_that_base64_does_not_have_is_refused(desk: Any) -> None:
    header, payload, signature = desk.write().split(".")
    assert reason(desk, f"{header}.{payload}.{signature[:41]}") == "malformed"


def test_r15_a_token_inside_a_token_is_refused(desk: Any) -> None:
    inner = desk.write()
    assert reason(desk, desk.write(raw_payload=inner.encode())) == "bad_payload"
    assert reason(desk, desk.write(raw_payload=json.dumps(inner).encode())) == "bad_payload"
    assert reason(desk, desk.write(raw_payload=b"")) == "bad_payload"


def test_what_a_token_says_of_itself_can_be_read_without_believing_it(
    desk: Any, encode: Callable[[bytes], str]
) -> None:
    header, claims = peek(desk.write(header={"alg": "none", "kid": "k"})[:-9] + "AAAAAAAAA")
    assert (header["alg"], header["kid"], claims) == ("none", "k", desk.claims())
    good, bad = encode(b"{}"), encode(b"[]")
    for token, code in (
        (f"{bad}.{good}.{good}", "bad_header"),
        (f"{good}.{bad}.{good}", "bad_payload"),
        ("x", "malformed"),
    ):
        with pytest.raises(NotAuthenticated) as caught:
            peek(token)
        assert caught.value.reason == code


def test_r16_the_form_of_a_token_includes_its_length() -> None:
    assert is_compact("a." * 2 + "a" * (MAX_TOKEN - 4))
    assert not is_compact("a." * 2 + "a" * (MAX_TOKEN - 3))
    assert not is_compact("a.b")


def test_r16_a_token_of_more_than_16_kb_is_not_even_looked_at(desk: Any) -> None:
    assert reason(desk, "!" * (MAX_TOKEN + 1)) == "too_long"
    assert reason(desk, "!" * MAX_TOKEN) == "malformed"
    big = desk.write(desk.claims(note="x" * 12_000))
    assert 16_000 < len(big) <= MAX_TOKEN
    assert desk.auth.verify(big).id == "alice"


GOOD_PAYLOAD = '{"user_id": "alice", "exp": 1800003600}'
BAD_JSON = {
    "a byte order mark": b"\xef\xbb\xbf" + GOOD_PAYLOAD.encode(),
    "UTF-16": GOOD_PAYLOAD.encode("utf-16"),
    "UTF-16 without a mark": GOOD_PAYLOAD.encode("utf-16-le"),
    "UTF-32": GOOD_PAYLOAD.encode("utf-32-be"),
    "bytes that are no UTF-8": b'{"user_id": "alice\xff", "exp": 1800003600}',
    "an encoded surrogate": b'{"user_id": "alice\xed\xa0\x80", "exp": 1800003600}',
    "an escaped surrogate": b'{"user_id": "alice", "x": "\\ud800", "exp": 1800003600}',
    "NUL": b'{"user_id": "alice", "x": "\\u0000", "exp": 1800003600}',
    "NaN": b'{"user_id": "alice", "exp": NaN}',
    "Infinity": b'{"user_id": "alice", "exp": Infinity}',
    "-Infinity": b'{"user_id": "alice", "nbf": -Infinity, "exp": 1800003600}',
    "1e999": b'{"user_id": "alice", "exp": 1e999}',
    "21 digits": b'{"user_id": "alice", "x": 100000000000000000000, "exp": 1800003600}',
    "5000 digits": b'{"user_id": "alice", "exp": ' + b"1" * 5000 + b"}",
    "21 levels": b'{"x": ' + b"[" * 20 + b"]" * 20 + b', "user_id": "alice", "exp": 1800003600}',
    "900 levels": b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a comma too many": b'{"user_id": "alice", "exp": 1800003600,}',
    "a comment": b'{"user_id": "alice", "exp": 1800003600} // x',
    "two values": b'{"user_id": "alice", "exp": 1800003600} {}',
    "single quotes": b"{'user_id': 'alice', 'exp': 1800003600}",
    "a duplicate": b'{"user_id": "mallory", "user_id": "alice", "exp": 1800003600}',
    "an escaped duplicate": b'{"user_id": "alice", "exp": 1, "\\u0065xp": 1800003600}',
    "a deep duplicate": b'{"user_id": "alice", "exp": 1800003600, "x": {"a": 1, "a": 2}}',
    "nothing": b"",
    "white space": b"  ",
    "a string": b'"alice"',
    "a list": b'[{"user_id": "alice", "exp": 1800003600}]',
    "null": b"null",
    "a number": b"1",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_r17_r18_the_payload_is_a_strict_json_object(desk: Any, name: str) -> None:
    assert reason(desk, desk.write(raw_payload=BAD_JSON[name])) == "bad_payload"


def test_r17_what_the_limits_allow_is_read(desk: Any) -> None:
    payload = (
        b' {"x": ' + b"[" * 19 + b"]" * 19 + b', "n": 99999999999999999999, "user_id": '
        b'"\\u0061l\xc3\xafce", "exp":1800003600}\n'
    )
    principal = desk.auth.verify(desk.write(raw_payload=payload))
    assert principal.id == "al\u00efce"
    assert principal.claims["n"] == 99999999999999999999


@pytest.mark.parametrize(
    "header",
    [
        b'\xef\xbb\xbf{"alg":"HS256"}',
        '{"alg":"HS256"}'.encode("utf-16"),
        b'{"alg":"none","alg":"HS256"}',
        b'{"alg":"HS256","alg":"HS256"}',
        b'{"alg":"HS256","x":{"a":1,"a":1}}',
        b'{"alg":"HS256","x":NaN}',
        b'{"alg":"HS256","x":1e999}',
        b'{"alg":"HS256","kid":"\\ud800"}',
        b'{"alg":"HS256","kid":"\xed\xa0\x80"}',
        b'{"alg":"HS256","x":-Infinity}',
        b'{"alg":"HS256","x":100000000000000000000}',
        '{"alg":"HS256"}'.encode("utf-32"),
        b'{"alg":"HS256","x":' + b"[" * 20 + b"]" * 20 + b"}",
        b'["HS256"]',
        b'"HS256"',
        b"{",
        b"\xff\xfe",
    ],
)
def test_r17_r18_the_header_is_a_strict_json_object(desk: Any, header: bytes) -> None:
    assert reason(desk, desk.write(raw_header=header)) == "bad_header"


@pytest.mark.parametrize("kid", [None, 1, 1.5, True, ["a"], {"a": 1}])
def test_r26_kid_is_a_string(desk: Any, kid: Any) -> None:
    assert reason(desk, desk.write(header={"kid": kid})) == "bad_kid"


@pytest.mark.parametrize("kid", ["", "key-1", "../../dev/null", "' OR 1=1 --", "\x1b[31m\r\n"])
def test_r26_any_string_may_be_a_kid_and_selects_nothing(
    desk: Any, kid: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert desk.auth.verify(desk.write(header={"kid": kid})).id == "alice"
    assert not caplog.records


def test_r88_macs_are_compared_in_constant_time(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    original = hmac.compare_digest

    def watch(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return original(left, right)

    monkeypatch.setattr(jwt.algorithms.hmac, "compare_digest", watch)
    token = desk.write()
    desk.auth.verify(token)
    assert len(compared) == 1
    assert compared[0][0] == compared[0][1]


def test_r87_a_header_longer_than_two_kilobytes_is_refused_unread(desk: Any) -> None:
    padding = b'{"alg":"HS256","x":"%s"}'
    fits = padding % (b"x" * (MAX_HEADER - len(padding) + 2))
    assert len(fits) == MAX_HEADER
    assert desk.auth.verify(desk.write(raw_header=fits)).id == "alice"
    too_long = padding % (b"x" * (MAX_HEADER - len(padding) + 3))
    assert reason(desk, desk.write(raw_header=too_long)) == "bad_header"
