"""Both event buses keep the promises of `EventBus`."""

from collections.abc import AsyncIterator, Sequence

import pytest

from agentflow_server.events.local import LocalEventBus
from agentflow_server.interfaces import EventBus
from agentflow_server.testing.events import EventBusSuite

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from agentflow_server.events.postgres import PostgresEventBus


class TestLocalEventBus(EventBusSuite):
    @pytest.fixture
    async def replicas(self) -> Sequence[EventBus]:
        return [LocalEventBus()]


class TestPostgresEventBus(EventBusSuite):
    @pytest.fixture
    async def replicas(self, postgres_url: str) -> AsyncIterator[Sequence[EventBus]]:
        async with PostgresEventBus(postgres_url) as one, PostgresEventBus(postgres_url) as other:
            yield one, other
