"""Keys and revocations in a SQLite file, beside a server that has it open."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.errors import ConfigError, StoreUnavailable
from agentflow_server.interfaces import CredentialStore
from agentflow_server.stores import migrate, sqlite_credentials, sqlite_file
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_credentials import (
    HASH,
    NOW,
    CredentialStoreSuite,
    make_key,
    of_token,
    of_user,
)
from agentflow_server.testing.store_data import make_thread, start

SCRIPT = Path(__file__).with_name("revoking_beside.py")


class TestSqliteCredentials(CredentialStoreSuite):
    @pytest.fixture
    async def credentials(self, tmp_path: Path) -> AsyncIterator[CredentialStore]:
        async with SqliteStore(tmp_path / "agentflow.db") as store:
            yield store


class TestSqliteCredentialsBesideAServer(CredentialStoreSuite):
    @pytest.fixture
    async def credentials(self, tmp_path: Path) -> AsyncIterator[CredentialStore]:
        path = tmp_path / "agentflow.db"
        async with SqliteStore(path), SqliteStore(path, exclusive=False) as store:
            yield store


async def count(store: SqliteStore, table: str) -> int:
    (found,) = await store.read(lambda c: c.execute(f"SELECT count(*) FROM {table}").fetchone())
    return int(found)


async def test_expired_revocations_are_thrown_away(store: SqliteStore) -> None:
    for n in range(3):
        await store.add_revocation(of_token(f"t{n}", at=1.0, expires_at=2.0 + n))
    await store.add_revocation(of_user())
    assert await count(store, "revocations") == 1


@pytest.mark.parametrize(
    ("sql", "parameters", "index"),
    [
        (sqlite_credentials.FIND_KEY, ("k",), "sqlite_autoindex_api_keys_1 (key_id=?)"),
        (sqlite_credentials.ALL_KEYS, (), "SCAN api_keys USING INDEX api_keys_by_age"),
        (sqlite_credentials.KEYS_OF_USER, ("u",), "INDEX api_keys_by_user (user_id=?)"),
        (sqlite_credentials.REVOCATIONS, (0,), "INDEX revocations_by_end (expires_at>?)"),
    ],
)
async def test_keys_are_found_and_ordered_by_an_index(
    store: SqliteStore, sql: str, parameters: tuple[Any, ...], index: str
) -> None:
    def explain(connection: sqlite3.Connection) -> str:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
        return "; ".join(row[3] for row in rows)

    plan = await store.read(explain)
    assert index in plan
    assert "TEMP B-TREE" not in plan


async def test_a_closed_store_knows_no_keys(path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SqliteStore(path, exclusive=False).find_api_key("k1")


def run_beside(path: Path) -> dict[str, Any]:
    """What a process of its own sees, and does, with `exclusive=False`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # finds what we find
    done = subprocess.run(
        [sys.executable, SCRIPT, path], env=environment, capture_output=True, text=True, check=True
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


async def test_another_process_writes_beside_the_server_and_is_seen_at_once(path: Path) -> None:
    async with SqliteStore(path) as server:
        await server.add_api_key(make_key("k1"), HASH)
        thread = await make_thread(server)
        running = await start(server, thread.thread_id)
        assert run_beside(path) == {"keys": ["k1"], "revoked": True}
        found = await server.find_api_key("k1")
        assert found is not None
        assert found[0].revoked_at is not None
        assert [entry.user_id for entry in await server.list_revocations(NOW)] == ["alice"]
        # Neither its coming nor its going settled or tidied anything of the server's.
        assert [run.run.run_id for run in await server.interrupted_runs()] == [running.run.run_id]
        await server.add_api_key(make_key("k2"), HASH)
        with pytest.raises(ConfigError, match="in use"):
            await SqliteStore(path).__aenter__()
    assert run_beside(path)["keys"] == ["k1", "k2"]


async def test_it_may_come_first_and_keeps_no_server_out(path: Path) -> None:
    async with SqliteStore(path, exclusive=False) as operator:
        await operator.add_api_key(make_key(), HASH)
        async with SqliteStore(path) as server:
            assert await server.find_api_key("k1") == (make_key(), HASH)
            await server.revoke_api_key("k1", NOW)
            found = await operator.find_api_key("k1")
    assert found is not None
    assert found[0].revoked_at is not None
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def forget_the_newest_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is now the older version."""
    older = migrate.load_migrations("sqlite")[:-1]
    monkeypatch.setattr(sqlite_file, "load_migrations", lambda _: older)


async def test_a_database_is_not_migrated_under_a_running_server(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        forget_the_newest_migration(older)
        async with SqliteStore(path) as server:
            older.undo()
            with pytest.raises(ConfigError, match="of an older version") as caught:
                await SqliteStore(path, exclusive=False).__aenter__()
            assert str(path) in str(caught.value)
            assert (
                await count(server, "schema_migrations")
                == len(migrate.load_migrations("sqlite")) - 1
            )
    async with SqliteStore(path, exclusive=False) as operator:
        assert await count(operator, "schema_migrations") == len(migrate.load_migrations("sqlite"))


async def test_a_newer_database_is_refused_beside_its_server(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStore(path):
        forget_the_newest_migration(monkeypatch)
        with pytest.raises(ConfigError, match="newer"):
            await SqliteStore(path, exclusive=False).__aenter__()
