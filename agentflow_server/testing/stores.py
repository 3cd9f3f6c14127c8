"""What every Store has to get right, as tests to inherit."""

import pytest

from agentflow_server.interfaces import Store
from agentflow_server.testing.store_control import ControlTests
from agentflow_server.testing.store_copies import CopyTests
from agentflow_server.testing.store_delays import DelayTests
from agentflow_server.testing.store_interrupts import InterruptTests
from agentflow_server.testing.store_lines import LineTests
from agentflow_server.testing.store_messages import MessageTests
from agentflow_server.testing.store_pruning import PruningTests
from agentflow_server.testing.store_runs import RunTests
from agentflow_server.testing.store_threads import ThreadTests
from agentflow_server.testing.store_waiting import WaitingTests


class StoreSuite(
    ThreadTests,
    RunTests,
    ControlTests,
    LineTests,
    InterruptTests,
    WaitingTests,
    DelayTests,
    MessageTests,
    CopyTests,
    PruningTests,
):
    """Subclass it, give it your store, opened and empty, and run pytest:

    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def store(self, tmp_path):
            async with MyStore(tmp_path / "my.db") as store:
                yield store
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def store(self) -> Store:
        raise NotImplementedError("override this fixture")
