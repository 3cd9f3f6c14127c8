"""Projects in temporary folders, the command in this process, and the real one in its own."""

import asyncio
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from typer.testing import CliRunner, Result

import agentflow_server
from agentflow_server.cli import app
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.sqlite import SqliteStore

STRONG_SECRET = "kJ8vQ2mX9rT4wZ7yB1nC6dF3gH5sL0pA-eUiOqRtYx"
ECHO = 'def app(messages, config):\n    return "echo " + messages[-1]["content"]\n'
DEADLINE = 60.0


@pytest.fixture(autouse=True)
def _own_process_state() -> Iterator[None]:
    """The command sets variables, paths, modules and logging: all of it is put back."""
    environment, path, modules = dict(os.environ), list(sys.path), set(sys.modules)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for name in list(os.environ):
        if name.startswith(("AGENTFLOW_", "JWT_")):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("project_"):
            del sys.modules[name]
    root.handlers = handlers
    root.setLevel(level)
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith(("agentflow", "uvicorn")):
            logger.setLevel(logging.NOTSET)


@pytest.fixture
def secret() -> str:
    return STRONG_SECRET


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make the current folder a project: agentflow.json with these keys, and an agent."""
    monkeypatch.chdir(tmp_path)

    def project(agent: str = ECHO, **settings: Any) -> Path:
        (tmp_path / "project_agent.py").write_text(agent, encoding="utf-8")
        content = {"agent": "project_agent:app", **settings}
        (tmp_path / "agentflow.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return project


@pytest.fixture
def run() -> Callable[..., Result]:
    """The command in this process."""

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


class Running:
    """The real command in a process of its own; its output is read line by line."""

    def __init__(self, folder: Path, *arguments: str, group: bool = False) -> None:
        """`group`: as a shell starts it, in a process group of its own."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AGENTFLOW_")}
        environment["PYTHONPATH"] = str(Path(agentflow_server.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_server", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0 if group else None,
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        streams = ((self.process.stdout, self.stdout), (self.process.stderr, self.stderr))
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in streams
            if stream
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                self._news.put(lines[-1])

    def wait_for(self, text: str) -> str:
        """The next line, of either stream, that contains `text`."""
        while text not in (line := self._news.get(timeout=DEADLINE)):
            pass
        return line

    def wait_for_url(self) -> str:
        return self.wait_for("URL ").split()[-1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(timeout=DEADLINE)
        for reader in self._readers:
            reader.join(timeout=DEADLINE)
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start `agentflow …` in the project's folder."""
    started: list[Running] = []

    def start(*arguments: str, group: bool = False) -> Running:
        started.append(Running(tmp_path, *arguments, group=group))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.wait()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty one."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def use_store(database: str) -> Callable[[Callable[[Any], Awaitable[Any]]], Any]:
    """What `work` returns when it is given the store, opened as beside a server."""

    def use(work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def open_and_work() -> Any:
            path = database.removeprefix("sqlite:///")
            is_file = path != database
            made = SqliteStore(Path(path), exclusive=False) if is_file else PostgresStore(database)
            async with made as store:
                return await work(store)

        return asyncio.run(open_and_work())

    return use
