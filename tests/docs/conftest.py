"""Reads the project's own pages, and does what they say in a fresh folder."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = ("JWT_", "AGENTFLOW_")
_FILE = re.compile(r"`(?P<path>[\w/.-]+\.(?:py|json))`:\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block under a heading; `path` is the file that the line before it names."""

    page: str
    section: str
    language: str
    text: str
    path: str | None


def read_blocks(page: Path) -> Iterator[Block]:
    section = before = language = ""
    inside: list[str] | None = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if inside is not None and line.startswith("```"):
            named = _FILE.search(before)
            text = "".join(f"{inner}\n" for inner in inside)
            yield Block(page.name, section, language, text, named and named["path"])
            inside = None
        elif inside is not None:
            inside.append(line)
        elif line.startswith("```"):
            language, inside = line.removeprefix("```"), []
        elif line.startswith("#"):
            section = line.lstrip("# ")
        elif line.strip():
            before = line


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def readme() -> list[Block]:
    return list(read_blocks(ROOT / "README.md"))


@pytest.fixture
def texts() -> dict[str, str]:
    """Every page by its name."""
    found = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("docs/**/*.md"))]
    return {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in found}


@pytest.fixture
def pages(texts: dict[str, str]) -> list[Block]:
    return [block for name in texts for block in read_blocks(ROOT / name)]


@pytest.fixture
def blocks_of() -> Callable[[str, str], list[Block]]:
    """The blocks of one section: `blocks_of("docs/operations/keys.md", "The audit key")`."""

    def blocks_of(page: str, section: str) -> list[Block]:
        found = [block for block in read_blocks(ROOT / page) if block.section == section]
        assert found, f"{page} has no section {section!r} with blocks"
        return found

    return blocks_of


class Reader:
    """Someone who follows a page in a fresh folder: writes its files, types its lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: subprocess.Popen[str] | None = None
        commands = folder / "bin"
        commands.mkdir()
        command = commands / "agentflow"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m agentflow_server "$@"\n')
        command.chmod(0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
        self.env["PATH"] = f"{commands}:{self.env['PATH']}"

    def write(self, path: str, text: str) -> None:
        target = self.folder / path
        target.parent.mkdir(exist_ok=True, parents=True)
        target.write_text(text, encoding="utf-8")

    def serve(self) -> None:
        """As often as one likes: the one before is stopped."""
        self.stop()
        self._server = subprocess.Popen(
            ["agentflow", "serve"],
            cwd=self.folder,
            env=self.env | {"AGENTFLOW_PORT": str(self.port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{self.url}/ping", timeout=1).read()
            except OSError:
                assert self._server.poll() is None, self._server.communicate()[0]
            else:
                return
        raise AssertionError("the server did not answer")

    def type(self, script: str, **env: str) -> str:
        """What the lines print; every one of them has to work."""
        done = self.attempt(script, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def attempt(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", script.replace("http://127.0.0.1:8000", self.url)],
            cwd=self.folder,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, credential: str) -> int:
        """The status of a request with this bearer token."""
        headers = {"Authorization": f"Bearer {credential}"}
        request = urllib.request.Request(f"{self.url}/threads", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.communicate(timeout=30)
            self._server = None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    someone = Reader(tmp_path)
    yield someone
    someone.stop()
