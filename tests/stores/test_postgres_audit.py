"""The table of the audit log, written by several servers."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
from psycopg import AsyncConnection

from agentflow_server.stores.migrate import load_migrations
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_audit import PostgresAuditTable
from agentflow_server.stores.postgres_migrate import migrate_postgres


@pytest.fixture
async def tables(postgres_url: str) -> AsyncIterator[Sequence[PostgresAuditTable]]:
    async with PostgresStore(postgres_url) as one, PostgresStore(postgres_url) as other:
        yield PostgresAuditTable(one), PostgresAuditTable(other)


async def test_lines_are_read_from_both_ends(tables: Sequence[PostgresAuditTable]) -> None:
    table = tables[0]
    assert list(await table.read_before(None, 9)) == []
    await table.extend(lambda *_: ["a", "b"])
    await table.extend(lambda *_: [])
    await table.extend(lambda *_: ["c"])
    assert list(await table.read_after(0, 2)) == [(1, "a"), (2, "b")]
    assert list(await table.read_after(2, 9)) == [(3, "c")]
    assert list(await table.read_before(None, 2)) == [(3, "c"), (2, "b")]
    assert list(await table.read_before(2, 9)) == [(1, "a")]


async def test_each_line_knows_the_one_before_it(tables: Sequence[PostgresAuditTable]) -> None:
    def count_on(newest_first: Iterable[str], _: str | None) -> Sequence[str]:
        last = int(next(iter(newest_first), "0"))
        return [str(last + 1), str(last + 2)]

    await asyncio.gather(*(tables[n % 2].extend(count_on) for n in range(20)))
    lines = await tables[0].read_after(0, 99)
    assert lines == [(n, str(n)) for n in range(1, 41)]


@pytest.mark.parametrize("unreadable", [0, 1, 15, 16, 17, 300])
async def test_however_far_back_the_last_good_line_is_it_is_found(
    tables: Sequence[PostgresAuditTable], unreadable: int
) -> None:
    def look(newest_first: Iterable[str], _: str | None) -> Sequence[str]:
        return [next((line for line in newest_first if line != "?"), "nothing")]

    await tables[0].extend(lambda *_: ["good", *["?"] * unreadable])
    await tables[1].extend(look)
    assert [line for _, line in await tables[0].read_before(None, 1)] == ["good"]


async def test_whoever_finds_nothing_has_seen_everything(
    tables: Sequence[PostgresAuditTable],
) -> None:
    await tables[0].extend(lambda *_: ["?"] * 40)
    seen: list[int] = []

    def look(newest_first: Iterable[str], _: str | None) -> Sequence[str]:
        seen.append(len(list(newest_first)))
        return []

    await tables[0].extend(look)
    assert seen[-1] == 40


async def test_the_last_line_is_known_to_whoever_writes_next(
    tables: Sequence[PostgresAuditTable],
) -> None:
    heads: list[str | None] = []

    def note(_: Iterable[str], head: str | None) -> Sequence[str]:
        heads.append(head)
        return [str(len(heads)), str(len(heads)) * 2]

    assert await tables[0].read_head() is None
    for n in range(3):
        await tables[n % 2].extend(note)
    await tables[0].extend(lambda *_: [])
    assert heads == [None, "11", "22"]
    assert await tables[1].read_head() == "33"


async def test_a_log_of_before_its_end_was_noted_gets_one(postgres_url: str) -> None:
    migrations = load_migrations("postgres")
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await migrate_postgres(connection, migrations[:4])
        await connection.execute("INSERT INTO agentflow.audit_log VALUES (1, 'a'), (2, 'b')")
    async with PostgresStore(postgres_url) as store:
        assert await PostgresAuditTable(store).read_head() == "b"
