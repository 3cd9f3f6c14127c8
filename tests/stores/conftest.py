"""What the tests of the stores share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow_server.stores.sqlite import SqliteStore

pytest.register_assert_rewrite(
    "agentflow_server.testing.store_control",
    "agentflow_server.testing.store_copies",
    "agentflow_server.testing.store_credentials",
    "agentflow_server.testing.store_data",
    "agentflow_server.testing.store_delays",
    "agentflow_server.testing.store_interrupts",
    "agentflow_server.testing.store_lines",
    "agentflow_server.testing.store_messages",
    "agentflow_server.testing.store_runs",
    "agentflow_server.testing.store_threads",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "agentflow.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path) as opened:
        yield opened
