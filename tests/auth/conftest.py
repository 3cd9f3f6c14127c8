"""Keys, tokens written byte by byte, a clock that stands still, and a provider of tokens."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from jwt.algorithms import get_default_algorithms

from agentflow_server.auth.claim_rules import ClaimRules
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.key_set import FixedKeys, KeySet
from agentflow_server.auth.keys import load_key
from agentflow_server.errors import NotAuthenticated
from agentflow_server.interfaces import Authenticator
from agentflow_server.models import Principal

NOW = 1_800_000_000.0
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


@dataclass
class Clock:
    """Time passes when a test says so."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Pair:
    """A key as its owner has it: `text` is what goes into JWT_SECRET_KEY."""

    algorithm: str
    signing: Any
    text: str
    private_text: str

    def sign(self, message: bytes, algorithm: str | None = None) -> bytes:
        return get_default_algorithms()[algorithm or self.algorithm].sign(message, self.signing)


@cache
def make_pair(algorithm: str) -> Pair:
    if algorithm.startswith("HS"):
        secret = "Zm9v-Yn2qRk8wTq0xLh3vBc6dPs1uEj9gXa4oMi7yKf5tWr-QzHlNbVe-J2sD8pGc"
        return Pair(algorithm, secret.encode(), secret, secret)
    if algorithm.startswith("RS"):
        key: Any = rsa.generate_private_key(65537, 2048)
    else:
        key = ec.generate_private_key(CURVES[algorithm]())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(algorithm, key, public.decode(), private.decode())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Desk:
    """One JwtAuth, its key and its clock."""

    pair: Pair
    rules: ClaimRules = field(default_factory=ClaimRules)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        keys = KeySet([load_key(self.pair.text, self.pair.algorithm)])
        self.auth = JwtAuth(FixedKeys(keys), self.rules, clock=self.clock)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims with changes; `...` removes one."""
        claims = {"user_id": "alice", "exp": int(NOW) + 3600, **changes}
        return {name: value for name, value in claims.items() if value is not ...}

    def write(
        self,
        claims: dict[str, Any] | None = None,
        *,
        header: dict[str, Any] | None = None,
        raw_header: bytes | None = None,
        raw_payload: bytes | None = None,
    ) -> str:
        """A signed token of exactly these bytes."""
        if raw_header is None:
            members = {"alg": self.pair.algorithm, "typ": "JWT", **(header or {})}
            kept = {name: value for name, value in members.items() if value is not ...}
            raw_header = json.dumps(kept).encode()
        if raw_payload is None:
            raw_payload = json.dumps(self.claims() if claims is None else claims).encode()
        message = f"{b64(raw_header)}.{b64(raw_payload)}"
        return f"{message}.{b64(self.pair.sign(message.encode()))}"


@pytest.fixture
def pair() -> Callable[[str], Pair]:
    return make_pair


@pytest.fixture
def desk() -> Desk:
    return Desk(make_pair("HS256"))


@pytest.fixture
def open_desk() -> Callable[..., Desk]:
    def open_desk(algorithm: str = "HS256", **rules: Any) -> Desk:
        return Desk(make_pair(algorithm), ClaimRules(**rules))

    return open_desk


@pytest.fixture
def encode() -> Callable[[bytes], str]:
    return b64


@dataclass
class Received:
    """A request as the provider saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), strict_parsing=True))


@dataclass
class Answer:
    """What the provider sends; `wait` holds it back until it is set."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Provider:
    """An OpenID provider on a loopback address: discovery, keys, tokens, introspection.

    `answers` replaces what it says at a path, by an Answer or by a function of the request.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[Received], Answer]] = {}
        self.received: list[Received] = []
        self.arrived = threading.Condition()
        self.pairs = {"first": make_pair("RS256")}
        self.active: dict[str, dict[str, Any]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_answering())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realms/shop"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def metadata(self, **changes: Any) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "introspection_endpoint": f"{self.issuer}/introspect",
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256"],
            **changes,
        }

    def jwk(self, kid: str, /, **changes: Any) -> dict[str, Any]:
        pair = self.pairs[kid]
        family = jwt.algorithms.ECAlgorithm if pair.algorithm[0] == "E" else None
        to_jwk = (family or jwt.algorithms.RSAAlgorithm).to_jwk
        jwk = json.loads(to_jwk(pair.signing.public_key()))
        jwk |= {"kid": kid, "use": "sig", "alg": pair.algorithm, **changes}
        return {name: value for name, value in jwk.items() if value is not ...}

    def token(self, kid: str = "first", **claims: Any) -> str:
        """A token that is good now, by the time of this machine, unless `claims` say otherwise."""
        payload = {"iss": self.issuer, "sub": "alice", "exp": int(time.time()) + 600, **claims}
        kept = {name: value for name, value in payload.items() if value is not ...}
        pair = self.pairs[kid]
        return jwt.encode(kept, pair.signing, pair.algorithm, headers={"kid": kid})

    def count(self, path_end: str) -> int:
        return sum(request.path.endswith(path_end) for request in self.received)

    def wait_for(self, path_end: str, times: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.count(path_end) >= times, timeout=10)

    def _answer(self, request: Received) -> Answer:
        with self.arrived:
            self.received.append(request)
            self.arrived.notify_all()
        planned = self.answers.get(request.path)
        if planned is not None:
            return planned if isinstance(planned, Answer) else planned(request)
        match request.path.removeprefix("/realms/shop"):
            case "/.well-known/openid-configuration":
                return Answer(self.metadata())
            case "/keys":
                return Answer({"keys": [self.jwk(kid) for kid in self.pairs]})
            case "/introspect":
                claims = self.active.get(request.form["token"])
                return Answer({"active": claims is not None, **(claims or {})})
        return Answer(b"<h1>Not found</h1>", status=404)

    def _make_answering(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                size = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Received(self.command, self.path, headers, self.rfile.read(size))
                answer = provider._answer(request)
                if answer.wait is not None:
                    answer.wait.wait(30)
                body = answer.content()
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - the name that the base class looks for

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Answering


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


REQUEST = HTTPConnection({"type": "http", "headers": []})


@pytest.fixture
def ask() -> Callable[..., Any]:
    """What an authenticator says about a credential."""

    async def ask(auth: Authenticator, text: str | None, scheme: str = "Bearer") -> Principal:
        credential = None
        if text is not None:
            credential = HTTPAuthorizationCredentials(scheme=scheme, credentials=text)
        return await auth.authenticate(REQUEST, Response(), credential)

    return ask


@pytest.fixture
def refusal(ask: Callable[..., Any]) -> Callable[..., Any]:
    """The reason for which an authenticator refuses a credential."""

    async def refusal(auth: Authenticator, text: str | None, scheme: str = "Bearer") -> str:
        with pytest.raises(NotAuthenticated) as caught:
            await ask(auth, text, scheme)
        return caught.value.reason

    return refusal
