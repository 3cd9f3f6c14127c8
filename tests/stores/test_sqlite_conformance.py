"""The SQLite store keeps every promise of `Store` and of `OperatorStore`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow_server.interfaces import Store
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_operators import OperatorStoreSuite
from agentflow_server.testing.stores import StoreSuite


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with SqliteStore(tmp_path / "agentflow.db") as store:
            yield store


class TestSqliteOperators(OperatorStoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with SqliteStore(tmp_path / "agentflow.db") as store:
            yield store
