"""Which files the store takes, and how it leaves them."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from agentflow_server.errors import ConfigError
from agentflow_server.models import Idempotency
from agentflow_server.stores.migrate import (
    APPLICATION_ID,
    Migration,
    load_migrations,
    migrate_sqlite,
)
from agentflow_server.stores.rows import now
from agentflow_server.stores.rules import VALID_FOR
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_data import make_thread, take_turn


async def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        await SqliteStore(path).__aenter__()
    (line,) = caught.value.problems
    assert "\n" not in line
    assert str(path) in line
    return line


async def count_rows(store: SqliteStore, table: str) -> int:
    (found,) = await store.read(lambda c: c.execute(f"SELECT count(*) FROM {table}").fetchone())
    return int(found)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_folder_and_the_files_are_private(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.create_thread("alice", "t1", metadata={})
        assert mode(path.parent) == 0o700
        files = {file.name: mode(file) for file in path.parent.iterdir()}
    assert set(files) == {f"agentflow.db{end}" for end in ("", "-wal", "-shm", ".lock")}
    assert set(files.values()) == {0o600}


async def test_a_closed_database_is_one_file(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.create_thread("alice", "t1", metadata={})
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "agentflow.db",
        "agentflow.db.lock",
    ]


async def test_a_second_server_on_the_same_file_is_refused(path: Path, tmp_path: Path) -> None:
    async with SqliteStore(path) as store:
        assert "is in use by another agentflow server" in await refusal(path)
        link = tmp_path / "link.db"
        link.symlink_to(path)
        with pytest.raises(ConfigError, match="in use"):
            await SqliteStore(link).__aenter__()
        with pytest.raises(ConfigError, match="in use"):
            await store.__aenter__()
        await store.ping()
    async with SqliteStore(path):
        pass


async def test_names_with_special_characters_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#%41&ü" / "x?cache=shared.db"
    async with SqliteStore(path) as store:
        await store.create_thread("alice", "t1", metadata={})
        assert (await store.get_thread("alice", "t1")).thread_id == "t1"
    assert path.stat().st_size > 0


async def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in await refusal(tmp_path)


async def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "cannot be written" in await refusal(file / "agentflow.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_read_only_file_is_refused(path: Path) -> None:
    async with SqliteStore(path):
        pass
    path.chmod(0o400)
    assert "cannot be written" in await refusal(path)


async def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"Dear diary, " * 500)
    assert "not a database" in await refusal(path)
    assert path.read_bytes() == b"Dear diary, " * 500


async def test_a_corrupted_database_is_refused(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.create_thread("alice", "t1", metadata={})
    healthy = path.read_bytes()
    path.write_bytes(healthy[:100] + b"\xff" * 4000 + healthy[4100:])
    assert "SQLite cannot use this" in await refusal(path)
    path.write_bytes(healthy)
    async with SqliteStore(path) as store:
        assert (await store.get_thread("alice", "t1")).thread_id == "t1"


async def test_another_programs_database_is_refused_and_not_changed(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE schema_migrations (version TEXT)")
    other.close()
    before = path.read_bytes()
    assert "another program" in await refusal(path)
    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.write(
            lambda c: c.execute("INSERT INTO schema_migrations VALUES (999, 'later', 0)").close()
        )
    assert "newer" in await refusal(path)


def test_migrations_are_numbered_without_gaps() -> None:
    migrations = load_migrations("sqlite")
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))


def test_only_missing_migrations_are_applied() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations = list(load_migrations("sqlite"))
    next_version = len(migrations) + 1
    migrate_sqlite(connection, migrations)
    migrations.append(Migration(next_version, "more", "CREATE TABLE more (n INTEGER);"))
    for _ in range(2):
        migrate_sqlite(connection, migrations)
    rows = connection.execute("SELECT version, name FROM schema_migrations ORDER BY 1").fetchall()
    assert rows == [(migration.version, migration.name) for migration in migrations]
    connection.close()


@pytest.mark.parametrize("end", ["SELECT nonsense FROM nowhere;", "COMMIT; SELECT nonsense;"])
def test_a_migration_that_fails_is_not_recorded(end: str) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations = list(load_migrations("sqlite"))
    migrate_sqlite(connection, migrations)
    broken = Migration(len(migrations) + 1, "broken", f"CREATE TABLE more (n INTEGER); {end}")
    with pytest.raises(sqlite3.Error):
        migrate_sqlite(connection, [*migrations, broken])
    assert not connection.in_transaction
    (version,) = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
    assert version == len(migrations)
    connection.close()


async def test_the_file_says_whose_it_is(store: SqliteStore) -> None:
    found = await store.read(lambda c: c.execute("PRAGMA application_id").fetchone())
    assert found == (APPLICATION_ID,)


async def test_an_old_idempotency_key_is_forgotten(path: Path) -> None:
    key = Idempotency("k", "POST /threads", "d")

    async def age_all(store: SqliteStore) -> None:
        old = now() - VALID_FOR - 1
        await store.write(
            lambda c: c.execute("UPDATE idempotency SET created_at = ?", (old,)).close()
        )

    async with SqliteStore(path) as store:
        await store.create_thread("alice", "t1", metadata={}, idempotency=key)
        await age_all(store)
        changed = Idempotency(key.key, key.route, "other")
        made = await store.create_thread("alice", "t2", metadata={}, idempotency=changed)
        assert made.thread_id == "t2"
        for n in range(3):
            other = Idempotency(f"k{n}", key.route, "d")
            await store.create_thread("alice", f"n{n}", metadata={}, idempotency=other)
        assert await count_rows(store, "idempotency") == 4
        await age_all(store)
        last = Idempotency("last", key.route, "d")
        await store.create_thread("alice", "t3", metadata={}, idempotency=last)
        assert await count_rows(store, "idempotency") == 1
        await age_all(store)
    async with SqliteStore(path) as store:
        assert await count_rows(store, "idempotency") == 0


async def test_a_long_thread_is_purged_in_slices(store: SqliteStore) -> None:
    thread, other = await make_thread(store), await make_thread(store)
    for _ in range(120):
        await take_turn(store, thread.thread_id, "Hello", "Hi")
    await take_turn(store, other.thread_id, "Hello", "Hi")
    await store.hide_thread("alice", thread.thread_id)
    await store.purge_thread(thread.thread_id)
    for table, left in (("threads", 1), ("runs", 1), ("messages", 2), ("run_events", 0)):
        assert (table, await count_rows(store, table)) == (table, left)
