"""What every test shares."""

import pytest

pytest_plugins = ("tests.postgres_server",)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on asyncio; so do its tests."""
    return "asyncio"
