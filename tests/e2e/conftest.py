"""The real command in a process of its own, and a gate at which its agents can be held."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import agentflow_server

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"

ECHO = """
def app(messages, config):
    return f"{config['user_id']}: {messages[-1]['content']}"
"""

# `gate.pass_through(name)` in an agent tells the test that it is there, and waits to be let go.
GATE = """
import os
import socket

def pass_through(name):
    if "GATE" in os.environ:
        with socket.create_connection(("127.0.0.1", int(os.environ["GATE"]))) as connection:
            connection.sendall(name.encode())
            connection.recv(1)
"""


def make_environment(**own: str) -> dict[str, str]:
    """This process's, without what would configure the server or a model."""
    prefixes = ("AGENTFLOW_", "JWT_", "OPENAI_")
    outside = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    return {**outside, "PYTHONPATH": str(Path(agentflow_server.__file__).parents[1]), **own}


class Server:
    """`python -m agentflow_server serve` in a folder; its output is read line by line."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self._closing = ExitStack()
        self._arrived = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_server", "serve", "--port", "0", *options],
            cwd=folder,
            env=make_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def answer(self) -> "Server":
        """Returns when it is ready."""
        self.url = self.wait_for(" URL ").split()[-1]
        self.http = self.client()
        return self

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as stream:
            for line in stream:
                with self._arrived:
                    self._lines.append(line.rstrip("\n"))
                    self._arrived.notify_all()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def wait_for(self, text: str) -> str:
        """The first line of the output that contains `text`."""

        def find() -> str | None:
            return next((line for line in self._lines if text in line), None)

        with self._arrived:
            self._arrived.wait_for(lambda: find() or self._ended, DEADLINE)
            line = find()
        assert line is not None, f"no {text!r} in:\n{self.output}"
        return line

    @property
    def output(self) -> str:
        return "\n".join(self._lines)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, token: str | None = None) -> httpx2.Client:
        """One more client; `http` is the one without a credential."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx2.Client(base_url=self.url, timeout=DEADLINE, headers=headers)
        return self._closing.enter_context(client)

    def kill(self) -> None:
        """As the kernel does it: no warning, no last words."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an administrator does it. Returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self._closing.close()
        return code

    def discard(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


class Held:
    """An agent at the gate; `name` is what it said when it came."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE)
        self.connection = connection
        self.name = connection.recv(1024).decode()

    def let_go(self) -> None:
        with suppress(OSError):  # whoever waited may have been killed
            self.connection.close()


class Gate:
    """Servers that are started with `GATE=gate.port` stop here until the test lets them go on."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(DEADLINE)
        self._held: list[Held] = []
        self.port = str(self._listener.getsockname()[1])

    def wait(self) -> Held:
        """The next one that comes."""
        self._held.append(Held(self._listener.accept()[0]))
        return self._held[-1]

    def close(self) -> None:
        self._listener.close()
        for held in self._held:
            held.let_go()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write({"agent.py": source, …}, auth="jwt", …)`: a project whose agent is `agent:app`."""

    def write(files: dict[str, str], **config: Any) -> Path:
        settings = {"agent": "agent:app", "auth": None, **config}
        settings = {key: value for key, value in settings.items() if value is not ...}
        for name, text in {"gate.py": GATE, "agent.py": ECHO, **files}.items():
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_text(textwrap.dedent(text), encoding="utf-8")
        (tmp_path / "agentflow.json").write_text(json.dumps(settings), encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """`start(folder, *options, **environment)`: a server that answers."""
    started: list[Server] = []

    def start(folder: Path, *options: str, **environment: str) -> Server:
        started.append(Server(folder, *options, **environment))
        return started[-1].answer()

    yield start
    for server in started:
        server.discard()


@pytest.fixture
def secret() -> str:
    return SECRET


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def environment() -> Callable[..., dict[str, str]]:
    return make_environment


@pytest.fixture
def new_thread() -> Callable[[httpx2.Client], str]:
    def new_thread(client: httpx2.Client) -> str:
        answer = client.post("/threads")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["thread_id"])

    return new_thread


@pytest.fixture
def say() -> Callable[..., str]:
    def say(client: httpx2.Client, thread_id: str, content: str) -> str:
        """What the agent answers, once it has."""
        answer = client.post(f"/threads/{thread_id}/messages", json={"content": content})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["message"]["content"])

    return say


@pytest.fixture
def history() -> Callable[..., Sequence[str]]:
    def history(client: httpx2.Client, thread_id: str) -> list[str]:
        answer = client.get(f"/threads/{thread_id}/messages?limit=200")
        assert answer.status_code == 200, answer.text
        return [f"{message['role']} {message['content']}" for message in answer.json()["data"]]

    return history


@pytest.fixture
def runs_of() -> Callable[..., Sequence[dict[str, Any]]]:
    def runs_of(client: httpx2.Client, thread_id: str) -> list[dict[str, Any]]:
        """A thread's runs, oldest first."""
        answer = client.get(f"/threads/{thread_id}/runs?limit=200")
        assert answer.status_code == 200, answer.text
        return list(reversed(answer.json()["data"]))

    return runs_of


@dataclass(frozen=True)
class Refusal:
    """A server that did not start."""

    code: int
    lines: list[str]
    listened: bool


@pytest.fixture
def refuse() -> Callable[..., Refusal]:
    """`refuse(folder, *options, **environment)`: start a server that must end by itself."""

    def refuse(folder: Path, *options: str, **environment: str) -> Refusal:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_server", "serve", "--port", str(port), *options],
            cwd=folder,
            env=make_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            listened = _listens_before_it_ends(process, port)
            output, _ = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
            process.wait()
        return Refusal(process.returncode, output.splitlines(), listened)

    return refuse


def _listens_before_it_ends(process: subprocess.Popen[str], port: int) -> bool:
    for _ in range(int(DEADLINE / 0.05)):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            return False
    return False
