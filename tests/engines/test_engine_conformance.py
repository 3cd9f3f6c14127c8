"""Both engines keep the promises of `Engine`."""

import pytest

from agentflow_server.testing.engine_data import OpenReplica
from agentflow_server.testing.engines import EngineSuite


class TestEmbeddedEngine(EngineSuite):
    @pytest.fixture
    def open_replica(self, open_embedded: OpenReplica) -> OpenReplica:
        return open_embedded


class TestPostgresEngine(EngineSuite):
    @pytest.fixture
    def open_replica(self, open_distributed: OpenReplica) -> OpenReplica:
        return open_distributed
