"""What the tests of the stores share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow_server.stores.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "agentflow.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path) as opened:
        yield opened
