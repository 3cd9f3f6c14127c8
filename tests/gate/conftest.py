"""A real server that verifies tokens, servers that behave badly, and agents that count."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvicorn

from agentflow_server import AuthCard, create_app

SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
DEADLINE = 60.0


def make_token(user_id: str = "alice", *, lifetime: float = 300.0, **claims: Any) -> str:
    now = time.time()
    claims = {"user_id": user_id, "iat": int(now), "exp": int(now + lifetime), **claims}
    return jwt.encode(claims, SECRET, "HS256")


@pytest.fixture
def token() -> Callable[..., str]:
    return make_token


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of the project in `folder`, served in a thread: tests may block their own loop."""
    os.environ["JWT_SECRET_KEY"] = SECRET
    try:
        app = create_app(folder / "agentflow.json")
    finally:
        del os.environ["JWT_SECRET_KEY"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        until = time.monotonic() + DEADLINE
        while not server.started and thread.is_alive() and time.monotonic() < until:
            thread.join(0.01)
        try:
            assert server.started
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(DEADLINE)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "gate_echo.py").write_text("def app(messages, config):\n    return 'echo'\n")
    settings = {"agent": "gate_echo:app", "auth": "jwt"}
    (folder / "agentflow.json").write_text(json.dumps(settings))
    with serving(folder) as url:
        yield url


@pytest.fixture
def serve() -> Callable[[Path], Any]:
    return serving


class Verifier:
    """Answers as it is told, and counts. It can hold its answer back."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self.body: bytes | None = b'{"valid": true}'
        self.let_go = threading.Event()
        self.let_go.set()
        self.came = threading.Semaphore(0)
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["Authorization"]))
                outer.came.release()
                outer.let_go.wait(DEADLINE)
                with suppress(OSError):  # whoever asked has given up
                    self.send_response(outer.status)
                    for name, value in outer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(outer.body or b"")

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def refuse(self) -> None:
        self.status, self.body = 401, b'{"code": "not_authenticated"}'

    def stop(self) -> None:
        self.let_go.set()
        self._http.shutdown()
        self._thread.join(DEADLINE)
        self._http.server_close()


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    verifier = Verifier()
    yield verifier
    verifier.stop()


@pytest.fixture
def good(verifier: Verifier) -> AuthCard:
    return AuthCard("good-token", verifier.url)


@pytest.fixture
def bad(verifier: Verifier) -> AuthCard:
    """A card that is refused."""
    verifier.refuse()
    return AuthCard("bad-token", verifier.url)
