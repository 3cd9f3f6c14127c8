"""auth/firebase.py against a local stand-in for Google's certificates."""

import base64
import datetime
import json
import logging
import socket
import time

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PROJECT = "demo-project"
INVALID = (401, "Invalid Firebase token")
UNAVAILABLE = (503, "Firebase is unavailable")


def make_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certify(key) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def google_key():
    return make_key()


@pytest.fixture
def certificates(server, answer, google_key, monkeypatch):
    """Google's certificates, on a server of ours."""
    body = json.dumps({"key-1": certify(google_key)}).encode()
    server.answer = lambda _: answer(200, body, {"Cache-Control": "public, max-age=600"})
    monkeypatch.setattr("firebase_admin._token_gen.ID_TOKEN_CERT_URI", f"{server.url}/certs")
    return server


@pytest.fixture
def clean(monkeypatch):
    for name in ("FIREBASE_AUTH_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def backend(load, certificates, clean):
    return load("firebase").FirebaseAuth(project_id=PROJECT)


def claims(**more):
    now = int(time.time())
    issued = {"iat": now - 5, "auth_time": now - 5, "exp": now + 3600}
    who = {"sub": "alice", "iss": f"https://securetoken.google.com/{PROJECT}", "aud": PROJECT}
    return {**issued, **who, **more}


@pytest.fixture
def token(google_key):
    def sign(*, key=google_key, headers=None, **more):
        return jwt.encode(claims(**more), key, "RS256", headers=headers or {"kid": "key-1"})

    return sign


def test_a_users_token_is_verified(backend, token, ask):
    profile = {"email": "alice@example.com", "email_verified": True, "name": "Alice"}
    assert ask(backend, token(**profile, roles=["admin"])) == {"user_id": "alice", **profile}


def test_what_the_token_does_not_say_is_none(backend, token, ask):
    assert ask(backend, token()) == {
        "user_id": "alice",
        "email": None,
        "email_verified": None,
        "name": None,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": 1_000_000_000},
        {"iat": 4_000_000_000},
        {"aud": "another-project"},
        {"iss": "https://securetoken.google.com/another-project"},
        {"iss": "https://evil.example.com/demo-project"},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 129},
        {"headers": {"kid": "unknown"}},
    ],
)
def test_a_wrong_token_is_refused_with_a_constant_text(backend, token, refusal, wrong):
    assert refusal(backend, token(**wrong)) == INVALID


def test_a_token_of_another_key_is_refused(backend, token, refusal):
    assert refusal(backend, token(key=make_key())) == INVALID


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(**more) -> str:
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims(**more))}."


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "x",
        "a.b.c",
        "ключ",
        unsigned(),
        f"{part({'alg': 'HS256'})}.{part({'v': 0, 'd': None})}.AAAA",
        f"{part({'alg': ['RS256'], 'kid': 'key-1'})}.{part(claims())}.AAAA",
        f"{part({'alg': 'RS256', 'kid': ['key-1']})}.{part(claims())}.AAAA",
        f"{part([])}.{part([])}.AAAA",
        base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".e30.AAAA",
    ],
)
def test_hostile_tokens_are_refused_and_nothing_worse(backend, refusal, hostile):
    assert refusal(backend, hostile) == INVALID


def test_certificates_are_fetched_once(backend, certificates, token, ask):
    for _ in range(3):
        ask(backend, token())
    assert [seen.path for seen in certificates.seen] == ["/certs"]


@pytest.mark.parametrize("status", [404, 500])
def test_google_out_of_order_is_a_503(backend, certificates, answer, token, refusal, status):
    certificates.answer = lambda _: answer(status)
    assert refusal(backend, token()) == UNAVAILABLE


def test_without_a_network_nobody_gets_in(load, clean, monkeypatch, token, refusal, caplog):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setattr(
        "firebase_admin._token_gen.ID_TOKEN_CERT_URI", f"http://127.0.0.1:{port}/certs"
    )
    backend = load("firebase").FirebaseAuth(project_id=PROJECT)
    secret = token()
    assert refusal(backend, secret) == UNAVAILABLE
    assert "Firebase is unavailable: CertificateFetchError" in caplog.text
    assert secret not in caplog.text


def test_the_emulators_unsigned_tokens_count_only_while_it_is_named(
    load, clean, certificates, monkeypatch, ask, refusal, caplog
):
    monkeypatch.setenv("FIREBASE_AUTH_EMULATOR_HOST", "127.0.0.1:9099")
    with caplog.at_level(logging.WARNING):
        backend = load("firebase").FirebaseAuth(project_id=PROJECT)
    assert "INSECURE: Firebase tokens are not verified (emulator at 127.0.0.1:9099)" in caplog.text
    assert ask(backend, unsigned(email="alice@example.com"))["email"] == "alice@example.com"
    assert refusal(backend, unsigned(aud="another-project")) == INVALID

    monkeypatch.delenv("FIREBASE_AUTH_EMULATOR_HOST")
    assert refusal(load("firebase").FirebaseAuth(project_id=PROJECT), unsigned()) == INVALID


def test_the_project_may_come_from_the_environment(
    load, certificates, clean, monkeypatch, token, ask
):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    assert ask(load("firebase").FirebaseAuth(), token())["user_id"] == "alice"


def test_mistakes_stop_the_server(load, clean, monkeypatch, tmp_path):
    construct = load("firebase").FirebaseAuth
    with pytest.raises(ValueError, match="project ID is required"):
        construct()
    with pytest.raises(ValueError, match="check_revoked needs credentials_file"):
        construct(project_id=PROJECT, check_revoked=True)
    with pytest.raises(ValueError, match="there is no file"):
        construct(credentials_file=str(tmp_path / "nothing.json"))
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"type": "authorized_user"}')
    with pytest.raises(ValueError, match="Invalid service account certificate"):
        construct(credentials_file=str(wrong))
    monkeypatch.setenv("FIREBASE_AUTH_EMULATOR_HOST", "http://127.0.0.1:9099")
    with pytest.raises(ValueError, match="FIREBASE_AUTH_EMULATOR_HOST"):
        construct(project_id=PROJECT)


def service_account(key, folder, token_uri: str) -> str:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = folder / "account.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "agent@example.com",
                "token_uri": token_uri,
            }
        )
    )
    return str(file)


def test_checking_for_revocation_without_an_answer_is_a_503(
    load, clean, certificates, google_key, answer, token, refusal, tmp_path
):
    account = service_account(google_key, tmp_path, f"{certificates.url}/token")
    backend = load("firebase").FirebaseAuth(credentials_file=account, check_revoked=True)
    serve_certificates = certificates.answer
    certificates.answer = lambda seen: (
        serve_certificates(seen) if seen.path == "/certs" else answer(401)
    )
    assert refusal(backend, token()) == UNAVAILABLE
    assert {seen.path for seen in certificates.seen} == {"/certs", "/token"}
