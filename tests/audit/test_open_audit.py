"""Which log a configuration gets, and the logs beside the file: table and standard output."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.audit import KEY_VARIABLE, open_audit, open_chain, open_sink
from agentflow_server.audit.chain import START, Chain, parse_line
from agentflow_server.audit.queue import NullAuditLog
from agentflow_server.audit.reading import TableReader
from agentflow_server.audit.table import AuditTable
from agentflow_server.audit.verifying import Verification
from agentflow_server.config import AuditConfig
from agentflow_server.errors import ConfigError, StoreUnavailable
from agentflow_server.models import AuditEvent
from agentflow_server.stores.migrate import load_migrations, migrate_sqlite
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_audit import PostgresAuditTable
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.sqlite_audit import SqliteAuditTable

AnyStore = SqliteStore | PostgresStore
Event = Callable[..., AuditEvent]
KEY = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AnyStore]:
    """Another process's store on the same database, each time; the first one is the server's."""
    if request.param == "postgres":
        return partial(PostgresStore, request.getfixturevalue("postgres_url"))
    exclusive = iter([True, False])
    path = tmp_path / "data" / "agentflow.db"
    return lambda: SqliteStore(path, exclusive=next(exclusive))


@pytest.fixture
async def store(open_store: Callable[[], AnyStore]) -> AsyncIterator[AnyStore]:
    async with open_store() as store:
        yield store


@pytest.fixture
def table(store: AnyStore) -> AuditTable:
    return make_table(store)


def make_table(store: AnyStore) -> AuditTable:
    return SqliteAuditTable(store) if isinstance(store, SqliteStore) else PostgresAuditTable(store)


async def execute(store: AnyStore, sql: str) -> None:
    if isinstance(store, SqliteStore):
        await store.write(lambda connection: connection.execute(sql).rowcount)
    else:
        await store.write(lambda connection: connection.execute(sql))


async def write(table: AuditTable, folder: Path, *events: AuditEvent, **config: Any) -> None:
    log = open_audit(AuditConfig(**config), folder=folder, table=table)
    await log.open()
    for event in events:
        log.record(event)
    await log.close()


async def lines_of(table: AuditTable) -> list[str]:
    return [line for _, line in await table.read_after(0, 10_000)]


def damage(lines: list[str], chain: Chain) -> list[str]:
    verification = Verification(chain)
    return [finding for line in lines for finding in verification.check(line)]


async def test_off_writes_nothing(table: AuditTable, tmp_path: Path, event: Event) -> None:
    assert isinstance(open_audit(AuditConfig(), folder=tmp_path, table=table), NullAuditLog)
    await write(table, tmp_path, event(), sink="off")
    assert await lines_of(table) == []


async def test_a_file_is_relative_to_the_folder(
    table: AuditTable, tmp_path: Path, event: Event
) -> None:
    await write(table, tmp_path, event(), sink="file", path="logs/audit.log")
    (line,) = (tmp_path / "logs" / "audit.log").read_text(encoding="utf-8").splitlines()
    assert parse_line(line)


async def test_stdout_has_a_line_for_each_event(
    table: AuditTable, tmp_path: Path, event: Event, capsys: pytest.CaptureFixture[str]
) -> None:
    await write(table, tmp_path, event(), event(user_id="a\nb"), sink="stdout")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2]
    assert damage(lines, Chain()) == []


async def test_the_table_keeps_one_chain_over_restarts(
    table: AuditTable, tmp_path: Path, event: Event
) -> None:
    for _ in range(3):
        await write(table, tmp_path, event(), event(), sink="database")
    lines = await lines_of(table)
    assert len(lines) == 6
    assert damage(lines, Chain()) == []


async def test_a_command_beside_the_server_continues_its_chain(
    open_store: Callable[[], AnyStore], table: AuditTable, tmp_path: Path, event: Event
) -> None:
    await write(table, tmp_path, event(), sink="database")
    async with open_store() as beside:
        await write(make_table(beside), tmp_path, event(), sink="database")
    await write(table, tmp_path, event(), sink="database")
    lines = await lines_of(table)
    assert len(lines) == 3
    assert damage(lines, Chain()) == []


async def test_an_edited_row_is_found(
    store: AnyStore, table: AuditTable, tmp_path: Path, event: Event
) -> None:
    await write(table, tmp_path, *[event(user_id="alice")] * 3, sink="database")
    sql = "UPDATE audit_log SET line = replace(line, 'alice', 'bobby') WHERE position = 2"
    await execute(store, sql)
    assert damage(await lines_of(table), Chain()) == [
        "seq 2: was changed, or written with another key"
    ]


@pytest.mark.parametrize("left", [0, 1])
async def test_r84_rows_that_were_cut_off_are_missed_and_that_is_said(
    store: AnyStore, table: AuditTable, tmp_path: Path, event: Event, left: int
) -> None:
    await write(table, tmp_path, *[event()] * 3, sink="database")
    sql = f"DELETE FROM audit_log WHERE position > {left}"
    await execute(store, sql)
    assert (await TableReader.make(table)).noted.seq == 3
    await write(table, tmp_path, event(), sink="database")
    lines = [json.loads(line) for line in await lines_of(table)]
    assert [line["seq"] for line in lines[left:]] == [4, 5]
    assert lines[left]["action"] == "audit.truncated"
    assert lines[left]["details"] == {"found": str(left), "written": "3"}
    (missing,) = damage(await lines_of(table), Chain())
    assert missing.startswith("seq 4: before it")


async def test_a_table_that_has_no_head_goes_on_from_its_last_line(
    store: AnyStore, table: AuditTable, tmp_path: Path, event: Event
) -> None:
    await write(table, tmp_path, event(), event(), sink="database")
    await execute(store, "DELETE FROM audit_head")
    assert (await TableReader.make(table)).noted == START
    await write(table, tmp_path, event(), sink="database")
    assert damage(await lines_of(table), Chain()) == []
    assert (await TableReader.make(table)).noted.seq == 3


async def test_a_log_of_before_there_was_a_head_gets_one(event: Event) -> None:
    migrations = load_migrations("sqlite")
    before = [one for one in migrations if one.name != "audit_head"]
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate_sqlite(connection, before[:4])
    lines = Chain().extend(START, [event(), event()])[0]
    connection.executemany("INSERT INTO audit_log (line) VALUES (?)", [(line,) for line in lines])
    migrate_sqlite(connection, migrations)
    assert connection.execute("SELECT line FROM audit_head").fetchall() == [(lines[-1],)]
    connection.close()


async def test_a_table_that_cannot_be_written_says_so_in_our_words(
    store: AnyStore, table: AuditTable, tmp_path: Path, event: Event
) -> None:
    await execute(store, "DROP TABLE audit_log")
    sink = open_sink(AuditConfig(sink="database"), folder=tmp_path, table=table)
    assert sink
    with pytest.raises(StoreUnavailable, match=r"cannot be (written|used)"):
        await sink.append([event()])


async def test_the_table_is_read_page_by_page(
    table: AuditTable, tmp_path: Path, event: Event
) -> None:
    assert await (await TableReader.make(table)).news() == []
    await write(table, tmp_path, *[event()] * 1200, sink="database")
    reader = await TableReader.make(table)
    await write(table, tmp_path, event(user_id="later"), sink="database")
    oldest = [line async for _, line in reader.oldest_first()]
    newest = [line async for line in reader.newest_first()]
    assert [json.loads(line)["seq"] for line in oldest] == list(range(1, 1202))
    assert newest == oldest[-2::-1]
    assert await reader.news() == oldest[-1:]
    assert await reader.news() == []


async def test_a_key_seals_the_lines(
    table: AuditTable, tmp_path: Path, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert open_chain().is_keyed
    await write(table, tmp_path, event(), sink="database")
    lines = await lines_of(table)
    assert damage(lines, Chain(KEY.encode())) == []
    assert damage(lines, Chain()) != []
    assert KEY not in lines[0]


@pytest.mark.parametrize("key", ["", "short", "a" * 64, "ab" * 32])
def test_a_weak_key_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(ConfigError) as caught:
        open_chain()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{KEY_VARIABLE}: expected at least 32 random characters")
    assert not key or key not in problem
