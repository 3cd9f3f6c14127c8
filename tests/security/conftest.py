"""A real server to attack, and a search that recognises a secret in any disguise."""

import base64
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import pytest

import agentflow_server

DEADLINE = 60.0
_URL = re.compile(rb"http://127\.0\.0\.1:\d+")
ECHO = 'def app(messages, config):\n    return "noted"\n'


def environment(own: Mapping[str, str]) -> dict[str, str]:
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTFLOW_", "JWT_"))}
    return {**outside, "PYTHONPATH": str(Path(agentflow_server.__file__).parents[1]), **own}


class Server:
    """`agentflow serve` in a process of its own; everything it prints is kept."""

    def __init__(self, folder: Path, options: tuple[str, ...], own: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_server", "serve", "--port", "0", *options],
            cwd=folder,
            env=environment(own),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.lines: list[bytes] = []
        self._news: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        assert self.process.stdout
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self.lines.append(line.removesuffix(b"\n"))
                self._news.put(line)
        self._news.put(b"")

    def answer(self) -> "Server":
        """Returns when it is ready."""
        match = _URL.search(self.wait_for(b"http://127.0.0.1:"))
        assert match
        self.url = match[0].decode()
        return self

    def wait_for(self, text: bytes) -> bytes:
        """The next line that contains `text`."""
        while text not in (line := self._news.get(timeout=DEADLINE)):
            assert line, b"\n".join(self.lines).decode()
        return line

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=DEADLINE)
        self._reader.join(timeout=DEADLINE)
        return code


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    def project(**settings: Any) -> Path:
        (tmp_path / "attacked.py").write_text(ECHO, encoding="utf-8")
        content = {"agent": "attacked:app", **settings}
        (tmp_path / "agentflow.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return project


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def serve(folder: Path, *options: str, **own: str) -> Server:
        started.append(Server(folder, options, own))
        return started[-1].answer()

    yield serve
    for server in started:
        server.stop()


@pytest.fixture
def agentflow() -> Callable[..., str]:
    """Run a command in a project; what it prints to its standard output."""

    def agentflow(folder: Path, *arguments: str, **own: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "agentflow_server", *arguments],
            cwd=folder,
            env=environment(own),
            stdout=subprocess.PIPE,
            timeout=DEADLINE,
            check=True,
            text=True,
        ).stdout.strip()

    return agentflow


def disguises(secret: str) -> dict[str, bytes]:
    """How a log might show a secret, if not as it is."""
    plain = secret.encode()
    found = {
        "raw": plain,
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "url": quote(secret, safe="").encode(),
        "json": json.dumps(secret)[1:-1].encode(),
        "repr": repr(secret)[1:-1].encode(),
    }
    for shift in range(3):
        # Within a longer text the first and the last characters also depend on their neighbours.
        padded = b"\0" * shift + plain
        encoded = base64.b64encode(padded)[4 if shift else 0 :].rstrip(b"=")[:-2]
        found[f"base64+{shift}"] = encoded
        found[f"base64url+{shift}"] = encoded.replace(b"+", b"-").replace(b"/", b"_")
    return found


@pytest.fixture
def leaks() -> Callable[..., list[str]]:
    """Which secrets are where, and how: `leaks({name: bytes}, {name: secret})` is empty."""

    def leaks(places: Mapping[str, bytes], secrets: Mapping[str, str]) -> list[str]:
        return [
            f"{name} ({disguise}) in {place}"
            for name, secret in secrets.items()
            for disguise, form in disguises(secret).items()
            for place, content in places.items()
            if form in content
        ]

    return leaks
