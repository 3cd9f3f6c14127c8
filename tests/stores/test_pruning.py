"""What has expired goes with the events of old runs, whatever nobody needed meanwhile."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.models import Idempotency, Principal, Revocation
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_tickets import PostgresTickets
from agentflow_server.stores.rules import VALID_FOR
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_data import ALICE, make_id

AnyStore = SqliteStore | PostgresStore
FAR = 4e9  # seconds since 1970


@pytest.fixture(params=["sqlite", "postgres"])
async def either(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[AnyStore]:
    made: Callable[[], AnyStore] = (
        (lambda: SqliteStore(path))
        if request.param == "sqlite"
        else (lambda: PostgresStore(request.getfixturevalue("postgres_url")))
    )
    async with made() as store:
        yield store


async def count(store: AnyStore, table: str) -> int:
    sql = f"SELECT count(*) FROM {table}"

    async def read(connection: Any) -> int:
        return int((await (await connection.execute(sql)).fetchone())[0])

    if isinstance(store, SqliteStore):
        return await store.read(lambda c: int(c.execute(sql).fetchone()[0]))
    return await store.read(read)


async def execute(store: AnyStore, sql: str) -> None:
    if isinstance(store, SqliteStore):
        await store.write(lambda c: c.execute(sql).rowcount)
    else:
        await store.write(lambda c: c.execute(sql))


async def fill(store: AnyStore) -> None:
    for n in range(3):
        key = Idempotency(key=str(n), route="POST /threads", digest="d")
        await store.create_thread(ALICE, make_id(), metadata={}, idempotency=key)
        await store.add_revocation(Revocation(at=1.0, expires_at=FAR, token_id=str(n)))


async def test_what_is_still_good_stays(either: AnyStore) -> None:
    await fill(either)
    assert await either.prune(events_before=None, limit=9) == 0
    assert await count(either, "idempotency") == 3
    assert await count(either, "revocations") == 3


async def test_old_keys_go_some_at_a_time(either: AnyStore) -> None:
    await fill(either)
    await execute(either, f"UPDATE idempotency SET created_at = created_at - {VALID_FOR}")
    left = []
    for _ in range(2):
        await either.prune(events_before=None, limit=2)
        left.append(await count(either, "idempotency"))
    assert left == [1, 0]


async def test_expired_revocations_go(either: AnyStore) -> None:
    await fill(either)
    await execute(either, "UPDATE revocations SET expires_at = 1 WHERE token_id <> '0'")
    await either.prune(events_before=None, limit=9)
    assert [one.token_id for one in await either.list_revocations(0)] == ["0"]


async def test_expired_tickets_go(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        tickets = PostgresTickets(store)
        for n in range(3):
            await tickets.put(bytes([n]), Principal(ALICE), FAR)
        await store.prune(events_before=None, limit=9)
        assert await count(store, "tickets") == 3
        await execute(store, "UPDATE tickets SET expires_at = 1")
        await store.prune(events_before=None, limit=2)
        assert await count(store, "tickets") == 1
