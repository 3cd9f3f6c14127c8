"""R24 and R68: what is revoked is refused within a minute, although it verifies."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.auth import revocation as revocation_module
from agentflow_server.auth.revocation import Revocations
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.models import Principal, Revocation
from agentflow_server.stores.sqlite import SqliteStore

NOW = float(int(time.time()))
FOREVER = NOW + 86400
ISSUER = "https://id.example.com"


class Watched(SqliteStore):
    """Counts how often the list is read, and can hold a reader back."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads = 0
        self.is_read = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def list_revocations(self, now: float) -> Sequence[Revocation]:
        self.reads += 1
        self.is_read.set()
        await self.may_read.wait()
        return await super().list_revocations(now)


class Desk:
    def __init__(self, store: Watched) -> None:
        self.store = store
        self.now = 1000.0
        self.revocations = Revocations(store, clock=lambda: self.now)

    async def revoke(self, **values: Any) -> None:
        entry = Revocation(**{"at": NOW, "expires_at": FOREVER, **values})
        await self.store.add_revocation(entry)

    async def accepts(self, principal: Principal) -> bool:
        try:
            await self.revocations.check(principal)
        except NotAuthenticated as exc:
            return (exc.reason, str(exc)) != ("revoked", "Could not validate credentials")
        return True

    async def finish_loading(self) -> None:
        loading = self.revocations._loading
        assert loading is not None
        await asyncio.wait_for(asyncio.wait({loading}), 10)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Watched(tmp_path / "agentflow.db") as store:
        desk = Desk(store)
        yield desk
        await desk.revocations.close()


def caller(user_id: str = "alice", **values: Any) -> Principal:
    return Principal(user_id, method="jwt", **{"issued_at": NOW, **values})


async def test_nobody_is_refused_while_nothing_is_revoked(desk: Desk) -> None:
    await desk.revocations.open()
    for _ in range(100):
        assert await desk.accepts(caller(token_id="t1"))
    assert desk.store.reads == 1


async def test_r24_a_token_is_revoked_by_its_id(desk: Desk) -> None:
    await desk.revoke(token_id="t1")
    await desk.revocations.open()
    assert not await desk.accepts(caller(token_id="t1"))
    assert not await desk.accepts(caller(token_id="t1", issuer=ISSUER, issued_at=NOW + 99))
    assert await desk.accepts(caller(token_id="t2"))
    assert await desk.accepts(caller(token_id=None))


async def test_an_id_may_be_revoked_for_one_issuer_alone(desk: Desk) -> None:
    await desk.revoke(token_id="t1", issuer=ISSUER)
    await desk.revocations.open()
    assert not await desk.accepts(caller(token_id="t1", issuer=ISSUER))
    assert await desk.accepts(caller(token_id="t1", issuer="https://other.example.com"))
    assert await desk.accepts(caller(token_id="t1"))


@pytest.mark.parametrize("method", ["jwt", "introspection", "api_key"])
async def test_a_user_is_revoked_with_everything_issued_before(desk: Desk, method: str) -> None:
    await desk.revoke(user_id="alice")
    await desk.revocations.open()

    def issued(at: float | None, user_id: str = "alice") -> Principal:
        return Principal(user_id, method=method, issued_at=at)

    assert not await desk.accepts(issued(NOW - 0.001))
    assert not await desk.accepts(issued(0.0))
    assert not await desk.accepts(issued(None))
    assert await desk.accepts(issued(NOW))
    assert await desk.accepts(issued(NOW + 1))
    assert await desk.accepts(issued(None, user_id="bob"))
    assert await desk.accepts(issued(None, user_id=f"{ISSUER}|alice"))


async def test_the_latest_of_several_revocations_of_a_user_counts(desk: Desk) -> None:
    for at in (NOW + 2, NOW + 5, NOW):
        await desk.revoke(user_id="alice", at=at)
    await desk.revocations.open()
    assert not await desk.accepts(caller(issued_at=NOW + 4))
    assert await desk.accepts(caller(issued_at=NOW + 5))


async def test_r68_a_revocation_is_seen_half_a_minute_later_and_delays_nobody(desk: Desk) -> None:
    await desk.revocations.open()
    await desk.revoke(user_id="alice")
    old = caller(issued_at=NOW - 1)
    desk.now += 29.9
    assert await desk.accepts(old)
    assert desk.store.reads == 1
    desk.now += 0.1
    desk.store.may_read.clear()
    assert await desk.accepts(old)
    desk.store.may_read.set()
    await desk.finish_loading()
    assert not await desk.accepts(old)
    assert desk.store.reads == 2


async def test_r68_after_a_minute_everybody_waits_for_the_new_list(desk: Desk) -> None:
    await desk.revocations.open()
    await desk.revoke(user_id="alice")
    desk.now += 60
    assert not await desk.accepts(caller(issued_at=NOW - 1))


async def test_one_reader_reads_for_all(desk: Desk) -> None:
    desk.store.may_read.clear()
    asking = [asyncio.create_task(desk.accepts(caller())) for _ in range(50)]
    await asyncio.wait_for(desk.store.is_read.wait(), 10)
    desk.store.may_read.set()
    assert await asyncio.gather(*asking) == [True] * 50
    assert desk.store.reads == 1


async def test_a_caller_who_gives_up_takes_the_list_from_nobody(desk: Desk) -> None:
    desk.store.may_read.clear()
    asking = [asyncio.create_task(desk.accepts(caller())) for _ in range(2)]
    await asyncio.wait_for(desk.store.is_read.wait(), 10)
    asking[0].cancel()
    desk.store.may_read.set()
    assert await asking[1]
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    assert desk.store.reads == 1


async def test_a_broken_database_is_bridged_for_a_minute_and_then_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Watched(tmp_path / "agentflow.db")
    desk = Desk(store)
    async with store:
        await desk.revoke(token_id="t1")
        await desk.revocations.open()
    for _ in range(5):  # 30 to 55 seconds old
        desk.now += 30 if desk.now == 1000 else 5
        assert await desk.accepts(caller())
        await desk.finish_loading()
        assert not await desk.accepts(caller(token_id="t1"))
    assert "the list of revocations could not be read" in caplog.text
    desk.now = 1060.0
    with pytest.raises(AuthUnavailable) as caught:
        await desk.accepts(caller())
    assert caught.value.reason == "revocations_unavailable"
    reads = store.reads
    with pytest.raises(AuthUnavailable):
        await desk.accepts(caller())
    assert store.reads == reads  # it is not asked again for each request
    async with store:
        desk.now += 5
        assert await desk.accepts(caller())
        assert not await desk.accepts(caller(token_id="t1"))


async def test_a_list_that_was_never_read_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(Watched(tmp_path / "agentflow.db"))
    await desk.revocations.open()
    with pytest.raises(AuthUnavailable):
        await desk.accepts(caller())
    assert len(caplog.records) == 1


async def test_a_database_that_hangs_is_not_waited_for_without_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "_PATIENCE", 0.01)
    desk.store.may_read.clear()
    with pytest.raises(AuthUnavailable):
        await desk.accepts(caller())
    await desk.revocations.close()
    assert desk.store.reads == 1


async def test_a_revocation_that_is_no_longer_kept_is_forgotten(desk: Desk) -> None:
    await desk.revoke(user_id="alice", expires_at=NOW - 1)
    await desk.revocations.open()
    assert await desk.accepts(caller(issued_at=0.0))
