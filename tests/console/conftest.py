"""A real server, a login server, a terminal, and a line that can be cut."""

import json
import os
import pty
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import CliRunner, Result

import agentflow_server
from agentflow_server.cli import app
from agentflow_server.client import AgentflowClient

SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
PASSWORD = "correct horse battery"
DEADLINE = 60.0
ROOT = str(Path(agentflow_server.__file__).parents[1])

TALK = """
import asyncio
import os
from pathlib import Path

from agentflow_server import approve, ask

EVIL = "a\\x1b]0;owned\\x07\\x9b31m &#x202e;b&#x27; <b>bold</b> [here](http://there.example)\\r\\n"

async def app(messages, config):
    content = messages[-1]["content"]
    match content.split():
        case ["fail"]:
            raise RuntimeError("no")
        case ["evil"]:
            yield EVIL
        case ["ask"]:
            yield "you said " + repr(await ask(config, {"question": "Really?", "amount": 7}))
        case ["approve"]:
            await approve(config, "send 3 emails", details={"to": "bob"})
            yield "sent"
        case ["twice"]:
            first, second = await ask(config, "First?"), await ask(config, "Second?")
            yield f"{first} and {second}"
        case ["slow"]:
            yield "one "
            await asyncio.to_thread(Path(os.environ["GATE"]).read_bytes)
            yield "two"
        case ["hold"]:
            yield "one "
            await asyncio.Event().wait()
        case ["whole"]:
            yield {"role": "assistant", "content": [{"type": "text", "text": "a part"}]}
            yield {"progress": 1}
        case ["markdown"]:
            for piece in ("# Ti", "tle\\n\\nsome **bold", "** text\\n\\n- a\\n- b", "\\n\\nend"):
                yield piece
        case _:
            yield "echo "
            yield content
"""

GRAPH = """
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

@tool
def weather(city: str) -> str:
    "Tell the weather."
    return "sunny in " + city

def call(state):
    if state["messages"][-1].type == "tool":
        return {"messages": [AIMessage("It is " + state["messages"][-1].content)]}
    call = {"name": "weather", "args": {"city": "Paris"}, "id": "c1"}
    return {"messages": [AIMessage("", tool_calls=[call])]}

def choose(state):
    return "tools" if state["messages"][-1].tool_calls else "__end__"

graph = StateGraph(MessagesState).add_node(call).add_node("tools", ToolNode([weather]))
graph.add_edge(START, "call").add_edge("tools", "call").add_conditional_edges("call", choose)
app = graph.compile()
"""


def make_token(user_id: str = "alice", *, lifetime: float = 300.0) -> str:
    claims = {"user_id": user_id, "iat": int(time.time()), "exp": int(time.time() + lifetime)}
    return jwt.encode(claims | {"jti": secrets.token_hex(8)}, SECRET, "HS256")


@pytest.fixture
def password() -> str:
    """Alice's."""
    return PASSWORD


@pytest.fixture
def token() -> Callable[..., str]:
    return make_token


class Served:
    """`agentflow serve` in a process of its own."""

    def __init__(self, folder: Path, *, auth: str | None = "jwt") -> None:
        (folder / "talk.py").write_text(TALK)
        (folder / "graph.py").write_text(GRAPH)
        agents = {"talk": "talk:app", "graph": "graph:app"}
        # Runs that nobody stops are ended with the server.
        config = {
            "agents": agents,
            "auth": auth,
            "runs": {"shutdown_grace": 0.1},
            "public_url": "http://127.0.0.1:8000",
        }
        if auth is not None:
            page = {"grants": ["authorization_code"], "redirect_uris": ["https://a.example/b"]}
            config["token_server"] = {"password_grant": True, "clients": {"page": page}}
        (folder / "agentflow.json").write_text(json.dumps(config))
        self.gate = folder / "gate"
        os.mkfifo(self.gate)
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTFLOW_", "JWT_"))}
        own = {"PYTHONPATH": ROOT, "JWT_SECRET_KEY": SECRET, "GATE": str(self.gate)}
        command, environment = [sys.executable, "-m", "agentflow_server"], outside | own
        subprocess.run(
            [*command, "users", "add", "alice", "--password-stdin"],
            cwd=folder,
            env=environment,
            input=PASSWORD.encode(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        self._process = subprocess.Popen(
            [*command, "serve", "--port", "0"],
            cwd=folder,
            env=environment,
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

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
        self._reader.join(DEADLINE)
        assert self._process.stdout
        self._process.stdout.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"))
    yield server
    server.stop()


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[Served]:
    """One without authentication."""
    (tmp_path / "open").mkdir()
    server = Served(tmp_path / "open", auth=None)
    yield server
    server.stop()


@pytest.fixture
def client(served: Served) -> Iterator[AgentflowClient]:
    """What alice sees without a console."""
    with AgentflowClient(served.url, make_token()) as client:
        yield client


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sessions are."""
    for name in list(os.environ):
        if name.startswith(("AGENTFLOW_", "JWT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTFLOW_SESSION", str(tmp_path / "own"))
    monkeypatch.setattr("agentflow_server.client.retries.backoff", lambda number: 0.01)
    return tmp_path / "own"


@pytest.fixture
def as_alice(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token, at the server."""
    monkeypatch.setenv("AGENTFLOW_URL", served.url)
    monkeypatch.setenv("AGENTFLOW_TOKEN", make_token())


@pytest.fixture
def run() -> Callable[..., Result]:
    """The command in this process, with a pipe instead of a terminal."""

    def run(*arguments: str, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(app, arguments, input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """The command in a process of its own, with pipes."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_server", *arguments],
            env={**os.environ, "PYTHONPATH": ROOT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(DEADLINE)
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe
            pipe.close()


# A terminal of its own: Ctrl-C goes to whoever has it, and passwords are asked for there.
_AT_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from agentflow_server.__main__ import main
main()
"""
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")


class Terminal:
    """The command at a terminal, and somebody who types."""

    def __init__(self, *arguments: str, out: Path | None = None) -> None:
        """`out`: where stdout goes instead."""
        self._ours, theirs = pty.openpty()
        stdout = theirs if out is None else os.open(out, os.O_WRONLY | os.O_CREAT)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _AT_TERMINAL, *arguments],
            env={**os.environ, "PYTHONPATH": ROOT, "TERM": "xterm", "COLUMNS": "100"},
            stdin=theirs,
            stdout=stdout,
            stderr=theirs,
            start_new_session=True,
        )
        for descriptor in {theirs, stdout}:
            os.close(descriptor)
        self.raw = b""
        self._seen = 0

    @property
    def text(self) -> str:
        """All that was shown, without what only a terminal understands."""
        return _CODES.sub("", self.raw.decode(errors="replace"))

    def expect(self, text: str) -> None:
        """It is shown after what was expected before."""
        deadline = time.monotonic() + DEADLINE
        while (found := self.text.find(text, self._seen)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} is not in {self.text[self._seen :]!r}")
        self._seen = found + len(text)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, seconds))
        data = b""
        if ready:
            with suppress(OSError):  # nobody is left at the other end
                data = os.read(self._ours, 65536)
        self.raw += data
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode(errors="surrogateescape"))

    def wait(self) -> int:
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def terminal(*arguments: str, out: Path | None = None) -> Terminal:
        opened.append(Terminal(*arguments, out=out))
        return opened[-1]

    yield terminal
    for one in opened:
        one.close()


class Line:
    """A TCP proxy that can be cut, once or for as long as it is dead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_silent = False
        self.was_asked = threading.Event()
        """Something came for the server while it was silent."""
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, do: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=do, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [near, far]
                self._start(self._pump, near, far)
                self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.is_silent:
                    self.was_asked.set()
                else:
                    target.sendall(data)
        self._shut(source, target)

    def cut(self) -> None:
        """All connections that there are."""
        self._shut(*self._ends)

    def _shut(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(DEADLINE)
        for end in self._ends:
            end.close()


@pytest.fixture
def line(served: Served) -> Iterator[Line]:
    line = Line(int(served.url.rpartition(":")[2]))
    yield line
    line.close()
