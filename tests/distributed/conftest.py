"""Processes that execute runs, and one that only accepts them."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.testing.engine_data import PATIENCE, Replica
from tests.distributed.gate import Gate
from tests.distributed.site import Site

SCRIPT = Path(__file__).with_name("worker_process.py")


@dataclass
class Fleet:
    """The processes and what their agents wrote down."""

    folder: Path

    def __post_init__(self) -> None:
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, url: str, *, lease: float = 1.0, script: Path = SCRIPT) -> int:
        """Returns its process id when it is ready."""
        with (self.folder / "errors").open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, script, url, self.folder, str(lease)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.processes[process.pid] = process
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", self.errors()
        return process.pid

    def send(self, pid: int, what: signal.Signals) -> None:
        self.processes[pid].send_signal(what)

    async def end(self, pid: int) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.processes[pid].wait), PATIENCE)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    def log(self, word: str) -> list[tuple[int, str, str]]:
        """(process, thread, content) of each turn that has begun, or ended."""
        path = self.folder / "log"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(pid), thread, text) for kind, pid, thread, text in lines if kind == word]

    async def seen(self, word: str, text: str, *, besides: int | None = None) -> int:
        """The process, which is not `besides`, that has begun (or ended) that turn."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for pid, _, content in self.log(word):
                    if content == text and pid != besides:
                        return pid
                await asyncio.sleep(0.02)

    def let_go(self, text: str) -> None:
        (self.folder / f"go-{text}").touch()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def open_api() -> Callable[[str], object]:
    """A process of its own would do the same: it has an engine that executes nothing."""
    from agentflow_server.engines.postgres import PostgresEngine
    from agentflow_server.events.postgres import PostgresEventBus
    from agentflow_server.runs.naming import Namer
    from agentflow_server.runs.worker import Worker
    from agentflow_server.stores.postgres import PostgresStore

    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Replica]:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(PostgresStore(url))
            bus = await stack.enter_async_context(PostgresEventBus(url, poll=0.2))
            worker = Worker(store, bus, {}, await stack.enter_async_context(Namer(store)))
            engine = PostgresEngine(
                store, worker, database=store, signals=bus, grace=1, concurrency=0
            )
            yield Replica(store, bus, await stack.enter_async_context(engine))

    return opened


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async with Gate() as gate:
        yield gate


@pytest.fixture
def make_site(tmp_path: Path, postgres_url: str, gate: Gate) -> Iterator[Callable[..., Site]]:
    """`make_site(runs={…}, …)`: a project; nothing is started yet."""
    with ExitStack() as stack:

        def make_site(*, database: str = postgres_url, **settings: Any) -> Site:
            site = Site(tmp_path, database, **settings)
            stack.callback(site.close)
            site.set(GATE=gate.port)
            return site

        yield make_site
