"""The PostgreSQL store keeps every promise of `Store`, `OperatorStore` and `CredentialStore`."""

from collections.abc import AsyncIterator

import pytest

from agentflow_server.interfaces import CredentialStore, Store
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.testing.store_credentials import CredentialStoreSuite
from agentflow_server.testing.store_operators import OperatorStoreSuite
from agentflow_server.testing.stores import StoreSuite


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with PostgresStore(postgres_url) as store:
            yield store


class TestPostgresCredentials(CredentialStoreSuite):
    @pytest.fixture
    async def credentials(self, postgres_url: str) -> AsyncIterator[CredentialStore]:
        async with PostgresStore(postgres_url) as store:
            yield store


class TestPostgresOperators(OperatorStoreSuite):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with PostgresStore(postgres_url) as store:
            yield store
