"""A real server, a token server, a line that can be cut, and servers that behave badly."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl

import jwt
import pytest
from anyio import to_thread

import agentflow_server
from agentflow_server.client import AgentflowClient, AsyncAgentflowClient

SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
DEADLINE = 60.0

TALK = """
import os

from agentflow_server import ask_sync

def app(messages, config):
    content = messages[-1]["content"]
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    if content == "fail":
        raise RuntimeError("no")
    if content == "hold":
        wait_at_the_gate()
    if content == "ask":
        return "you said " + ask_sync(config, {"question": "Really?"})
    return speak(content)

def speak(content):
    for word in content.split():
        if word == "then":
            wait_at_the_gate()
        yield word + " "

def wait_at_the_gate():
    with open(os.environ["GATE"], "rb") as gate:
        gate.read()
"""

STUCK = """
import asyncio

async def app(messages, config):
    yield "one "
    await asyncio.Event().wait()
"""

GRAPH = """
from langgraph.graph import START, MessagesState, StateGraph

def answer(state):
    return {"messages": [("assistant", "seen " + str(len(state["messages"])))]}

app = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
"""


def make_token(user_id: str = "alice", *, lifetime: float = 300.0, skew: float = 0.0) -> str:
    """What the real server accepts; `skew` is how wrong the clock of the issuer is."""
    now = time.time() + skew
    claims = {"user_id": user_id, "iat": int(now), "exp": int(now + lifetime)}
    return jwt.encode(claims | {"jti": secrets.token_hex(8)}, SECRET, "HS256")


@pytest.fixture
def token() -> Callable[..., str]:
    return make_token


class Served:
    """`agentflow serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        for name, text in {"talk.py": TALK, "stuck.py": STUCK, "graph.py": GRAPH}.items():
            (folder / name).write_text(textwrap.dedent(text))
        agents = {name: f"{name}:app" for name in ("talk", "stuck", "graph")}
        config = {"agents": agents, "auth": "jwt"}
        (folder / "agentflow.json").write_text(json.dumps(config))
        self.gate = folder / "gate"
        os.mkfifo(self.gate)
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTFLOW_", "JWT_"))}
        path = str(Path(agentflow_server.__file__).parents[1])
        own = {"PYTHONPATH": path, "JWT_SECRET_KEY": SECRET, "GATE": str(self.gate)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_server", "serve", "--port", "0"],
            cwd=folder,
            env=outside | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout
        seen = []
        for line in self._process.stdout:
            seen.append(line)
            if " URL " in line:
                self.url = line.split()[-1]
                break
        else:
            raise AssertionError("".join(seen))
        self._reader = threading.Thread(target=self._process.stdout.read, daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def hold(self) -> IO[bytes]:
        """Returns when an agent is at the gate, and holds it there until this is closed."""
        return self.gate.open("wb")

    def let_go(self) -> None:
        """Whoever holds at the gate, or comes there."""
        self.hold().close()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self._process.stdout
        self._process.stdout.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"))
    yield server
    server.stop()


class Both:
    """A client of either kind; what it does is awaited in any case."""

    def __init__(self, client: AgentflowClient | AsyncAgentflowClient) -> None:
        self.client = client

    async def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """One result, or everything there is to iterate."""
        method = partial(getattr(self.client, name), *args, **kwargs)
        if isinstance(self.client, AgentflowClient):
            return await to_thread.run_sync(lambda: _listed(method()))
        found = method()
        if hasattr(found, "__aiter__"):
            async with aclosing(found):
                return [item async for item in found]
        return await found

    async def close(self) -> None:
        if isinstance(self.client, AgentflowClient):
            self.client.close()
        else:
            await self.client.close()


def _listed(found: Any) -> Any:
    if not hasattr(found, "__next__"):
        return found
    with closing(found):
        return list(found)


@pytest.fixture(params=[AgentflowClient, AsyncAgentflowClient], ids=["sync", "async"])
async def connect(request: pytest.FixtureRequest) -> Any:
    """`connect(url, auth, **patience)`: the test runs once with each kind of client."""
    opened: list[Both] = []

    def connect(url: str, auth: Any = None, **patience: Any) -> Both:
        opened.append(Both(request.param(url, auth, **patience)))
        return opened[-1]

    yield connect
    for client in opened:
        await client.close()


@pytest.fixture
def ask(connect: Any, served: Served) -> Both:
    """A client of alice's, connected to the real server."""
    client: Both = connect(served.url, make_token())
    return client


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts nothing happens anyway."""
    monkeypatch.setattr("agentflow_server.client.retries.backoff", lambda number: 0.01)


class Line:
    """A TCP proxy; `cut_after` makes it break connections off in the middle of a stream."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut_after: list[tuple[bytes, int]] = []
        """For each of the next connections that says these bytes: how often it may."""
        self.connections = 0
        self.is_dead = False
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, do: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=do, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                if self.is_dead:
                    near.close()
                else:
                    self._start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            self._open |= {near, far}
            back = threading.Thread(target=self._pump, args=(far, near, True))
            back.start()
            self._pump(near, far, False)
            back.join()
            self._open -= {near, far}

    def _pump(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            is_whole = True
            while is_whole and (data := source.recv(65536)):
                allowed = self._cut(data) if is_answer else data
                is_whole = allowed == data
                target.sendall(allowed)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """All connections that there are."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _cut(self, data: bytes) -> bytes:
        if not self.cut_after:
            return data
        mark, times = self.cut_after[0]
        before = data.split(mark)
        if len(before) > times:
            self.cut_after.pop(0)
            return mark.join(before[:times])
        self.cut_after[0] = (mark, times - len(before) + 1)
        return data

    def close(self) -> None:
        with self._listener:
            self._listener.shutdown(socket.SHUT_RDWR)
        self.drop()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def line(served: Served) -> Iterator[Line]:
    line = Line(served.port)
    yield line
    line.close()


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Asked:
    """A request as a server of ours saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


class _Crowded(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Scripted:
    """An HTTP server that answers whatever `answer` returns; `asked` is what it was asked."""

    def __init__(self, answer: Callable[[Asked], Answer | None]) -> None:
        self.asked: list[Asked] = []
        scripted = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self) -> None:
                size = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, self.rfile.read(size))
                scripted.asked.append(asked)
                answer_ = answer(asked)
                self.close_connection = True
                if answer_ is None:
                    return  # hangs up
                status, fields, body = answer_
                self.send_response(status)
                for name, value in {
                    "Content-Length": str(len(body)),
                    "Connection": "close",
                    **fields,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815 – http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Crowded(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)


@pytest.fixture
def script() -> Iterator[Callable[[Callable[[Asked], Answer | None]], Scripted]]:
    """`script(lambda asked: (200, {}, b"…"))`: a server that behaves as it is told."""
    started: list[Scripted] = []

    def script(answer: Callable[[Asked], Answer | None]) -> Scripted:
        started.append(Scripted(answer))
        return started[-1]

    yield script
    for server in started:
        server.close()


def as_json(document: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(document).encode()


@pytest.fixture
def json_answer() -> Callable[..., Answer]:
    return as_json


@dataclass
class Issuer:
    """What a token server knows: rotated refresh tokens, each of them good once."""

    lifetime: float = 300.0
    skew: float = 0.0
    says_lifetime: bool = True
    passwords: dict[str, str] = field(default_factory=lambda: {"alice": "correct horse"})
    clients: dict[str, str] = field(default_factory=lambda: {"program": "client secret"})
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    is_family_revoked: bool = False
    slow: float = 0.0
    is_away: bool = False
    rotates: bool = True
    url: str = ""
    grants: list[dict[str, str]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    """Nothing is answered while it is not set."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Answer | None:
        form = asked.form
        if self.is_away:
            return None
        with self._lock:
            self.grants.append(form)
            self.asked.set()
            self.gate.wait(DEADLINE)
            threading.Event().wait(self.slow)
            match form.get("grant_type"):
                case "password" if self.passwords.get(form["username"]) == form["password"]:
                    return self._issue(form["username"])
                case "client_credentials" if self._knows_client(asked):
                    return self._issue("program", refresh=False)
                case "refresh_token":
                    user = self.refresh_tokens.get(form["refresh_token"])
                    if self.rotates:
                        self.refresh_tokens.pop(form["refresh_token"], None)
                    self.is_family_revoked |= user is None
                    if user is not None and not self.is_family_revoked:
                        return self._issue(user)
        return as_json({"error": "invalid_grant", "error_description": "Bad " + str(form)}, 400)

    def _knows_client(self, asked: Asked) -> bool:
        import base64

        if "client_secret" in asked.form:
            return self.clients.get(asked.form["client_id"]) == asked.form["client_secret"]
        basic = asked.headers.get("authorization", "").removeprefix("Basic ")
        name, _, secret = base64.b64decode(basic).decode().partition(":")
        return self.clients.get(name) == secret.replace("+", " ")

    def _issue(self, user: str, *, refresh: bool = True) -> Answer:
        document: dict[str, Any] = {
            "access_token": make_token(user, lifetime=self.lifetime, skew=self.skew),
            "token_type": "Bearer",
        }
        if self.says_lifetime:
            document["expires_in"] = self.lifetime
        if refresh:
            document["refresh_token"] = self.new_refresh_token(user)
        return as_json(document)

    def new_refresh_token(self, user: str = "alice") -> str:
        text = secrets.token_urlsafe(16)
        self.refresh_tokens[text] = user
        return text


@pytest.fixture
def issuer(script: Any) -> Issuer:
    """A token endpoint; the real server accepts what it issues."""
    issuer = Issuer()
    issuer.gate.set()
    issuer.url = script(issuer.answer).url + "/token"
    return issuer
