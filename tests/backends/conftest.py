"""What the tests of the ready-to-use backends share."""

import importlib.util
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from fastapi import HTTPException, Response
from fastapi.security import HTTPAuthorizationCredentials

CHECKOUT = Path(__file__).resolve().parents[2]
SECRET = "kRz4v-7Qm1Yx_0pLw8TgJd2HsNbUcEfA9iVoX6tZ"


@pytest.fixture
def load() -> Callable[..., ModuleType]:
    """A backend's file as a module of its own: nothing is shared between two tests."""

    def load_file(name: str, project: Path = CHECKOUT) -> ModuleType:
        path = project / "auth" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"backend_{name}_{uuid4().hex}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_file


@pytest.fixture
def ask() -> Callable[[Any, str], dict[str, Any] | None]:
    """Authenticates a token with a synchronous backend."""
    return lambda backend, token: backend.authenticate(Response(), bearer(token))


@pytest.fixture
def refusal() -> Callable[[Any, str], tuple[int, str]]:
    """Status and text with which a synchronous backend refuses a token."""

    def refuse(backend: Any, token: str) -> tuple[int, str]:
        with pytest.raises(HTTPException) as caught:
            backend.authenticate(Response(), bearer(token))
        return caught.value.status_code, caught.value.detail

    return refuse


def bearer(token: str) -> HTTPAuthorizationCredentials:
    return HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)


class Clock:
    """Stands in for the module `time`: it moves when it is told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


@pytest.fixture
def jwt_secret(monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("JWT_ISSUER", "JWT_AUDIENCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JWT_SECRET_KEY", SECRET)
    return SECRET


@dataclass
class Answer:
    """What a test's server says."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass
class Seen:
    """A request as the test's server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HttpServer:
    """A real HTTP server on a free port; `answer` decides what it says."""

    def __init__(self) -> None:
        self.answer: Callable[[Seen], Answer] = lambda _: Answer()
        self.seen: list[Seen] = []
        self.connections = 0
        outer = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, self.path, headers, self.rfile.read(length))
                outer.seen.append(seen)
                answer = outer.answer(seen)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_POST = do_GET  # noqa: N815 - the name http.server looks for

            def log_message(self, *args: Any) -> None:
                """The test says what was seen."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        # The interval is only how long `stop` may take.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    running = HttpServer()
    yield running
    running.stop()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer
