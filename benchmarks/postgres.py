"""A PostgreSQL to measure with: from the wheel of the tests, but as durable as it is by default."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from tests import postgres_server

DURABLE = {"fsync": "on", "full_page_writes": "on"}
"""Tests need neither; a turn that is called durable needs both."""


@contextmanager
def open_postgres() -> Iterator[postgres_server.PostgresServer]:
    """Raises RuntimeError if no wheel brings one."""
    wheel = postgres_server.find_wheel()
    if wheel is None:
        raise RuntimeError("there is no PostgreSQL: install the dependency group `dev`")
    with (
        patch.dict(postgres_server.SETTINGS, DURABLE),
        postgres_server.running_postgres(wheel) as server,
    ):
        yield server
