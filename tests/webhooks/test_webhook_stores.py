"""Both stores of ours keep every promise of `WebhookStore`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_webhooks import WebhookStoreSuite


class TestSqliteWebhooks(WebhookStoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Any]:
        async with SqliteStore(tmp_path / "a.db") as store:
            yield store


class TestPostgresWebhooks(WebhookStoreSuite):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Any]:
        async with PostgresStore(postgres_url) as store:
            yield store
