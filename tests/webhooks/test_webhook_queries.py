"""What senders ask again and again follows an index, however much is waiting."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.stores import postgres_webhooks, sqlite_webhooks
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.sqlite import SqliteStore

DUE, THREAD = "webhook_deliveries_due", "webhook_deliveries_by_thread"


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        (sqlite_webhooks.DUE, (1, '["a"]'), DUE),
        (sqlite_webhooks.NEXT_DUE, ('["a"]',), DUE),
        (sqlite_webhooks.FORGET, ("t",), THREAD),
    ],
)
async def test_sqlite_uses_its_indexes(tmp_path: Path, sql: str, values: Any, index: str) -> None:
    def explain(connection: sqlite3.Connection) -> str:
        found = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
        return "; ".join(row[3] for row in found)

    async with SqliteStore(tmp_path / "a.db") as store:
        plan = await store.read(explain)
    assert f"INDEX {index}" in plan
    assert "SCAN webhook_deliveries;" not in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        (postgres_webhooks.CLAIM, {"skip": ["a"], "lease": "l", "duration": 1}, DUE),
        (postgres_webhooks.NEXT_DUE, (["a"],), DUE),
        (postgres_webhooks.FORGET, ("t",), THREAD),
    ],
)
async def test_postgres_uses_its_indexes(
    postgres_url: str, sql: str, values: Any, index: str
) -> None:
    async def explain(connection: Connection) -> str:
        await connection.execute("SET enable_seqscan = off")
        await connection.execute("SET enable_bitmapscan = off")
        found = await connection.execute(f"EXPLAIN {sql}", values)
        return "\n".join(line for (line,) in await found.fetchall())

    async with PostgresStore(postgres_url) as store:
        plan = await store.read(explain)
    assert f"using {index}" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
