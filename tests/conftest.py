"""What every test shares."""

import pytest

# Before anything of it is imported: the suites that users inherit explain their failures, too.
pytest.register_assert_rewrite("agentflow_server.testing")

pytest_plugins = ("tests.postgres_server",)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on asyncio; so do its tests."""
    return "asyncio"
