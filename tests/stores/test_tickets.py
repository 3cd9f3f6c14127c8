"""Tickets of one process and tickets of the database are the same to whoever shows one."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields

import pytest

from agentflow_server.errors import TooManyRequests
from agentflow_server.models import Principal
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_tickets import PostgresTickets
from agentflow_server.web.tickets import TICKETS_PER_CALLER, MemoryTickets, TicketStore

ALICE, BOB = Principal("alice"), Principal("bob")


def digest(number: int) -> bytes:
    return number.to_bytes(32)


def soon() -> float:
    return time.time() + 60


@pytest.fixture(params=["memory", "postgres"])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[Sequence[TicketStore]]:
    """What two requests come to, one after the other."""
    if request.param == "memory":
        one = MemoryTickets()
        yield one, one
    else:
        url = request.getfixturevalue("postgres_url")
        async with PostgresStore(url) as store, PostgresStore(url) as other:
            yield PostgresTickets(store), PostgresTickets(other)


async def test_a_ticket_works_once(replicas: Sequence[TicketStore]) -> None:
    await replicas[0].put(digest(1), ALICE, soon())
    await replicas[0].put(digest(2), BOB, soon())
    assert await replicas[1].take(digest(1), time.time()) == ALICE
    assert await replicas[0].take(digest(1), time.time()) is None
    assert await replicas[0].take(digest(2), time.time()) == BOB
    assert await replicas[0].take(digest(3), time.time()) is None


async def test_whoever_shows_it_is_the_principal_in_every_respect(
    replicas: Sequence[TicketStore],
) -> None:
    principal = Principal(
        id="https://issuer.example|älice",
        claims={"sub": "älice", "groups": ["a", "b"], "deep": {"n": 2**70, "x": 1.5, "no": None}},
        scopes=frozenset({"threads:read", "runs:write"}),
        roles=frozenset({"admin"}),
        method="jwt",
        issuer="https://issuer.example",
        token_id="one",
        issued_at=time.time(),
        expires_at=time.time() + 0.123456789,
    )
    left_out = [one.name for one in fields(Principal) if not getattr(principal, one.name)]
    assert left_out == []
    await replicas[0].put(digest(1), principal, soon())
    assert await replicas[1].take(digest(1), time.time()) == principal


async def test_of_many_who_take_a_ticket_at_once_one_gets_it(
    replicas: Sequence[TicketStore],
) -> None:
    for n in range(5):
        await replicas[0].put(digest(n), ALICE, soon())
        taken = await asyncio.gather(
            *(replicas[k % 2].take(digest(n), time.time()) for k in range(8))
        )
        assert [one for one in taken if one] == [ALICE]


async def test_an_expired_ticket_is_nobodys(replicas: Sequence[TicketStore]) -> None:
    end = soon()
    for n, (moment, found) in enumerate([(end - 0.001, ALICE), (end, None), (end + 1, None)]):
        await replicas[0].put(digest(n), ALICE, end)
        assert await replicas[0].take(digest(n), moment) == found


async def test_a_caller_keeps_so_many_unused_ones(replicas: Sequence[TicketStore]) -> None:
    for n in range(TICKETS_PER_CALLER):
        await replicas[n % 2].put(digest(n), ALICE, soon())
    with pytest.raises(TooManyRequests) as caught:
        await replicas[0].put(digest(98), ALICE, soon())
    assert caught.value.retry_after == 60
    await replicas[0].put(digest(99), BOB, soon())
    await replicas[0].take(digest(0), time.time())
    await replicas[1].put(digest(98), ALICE, soon())


async def test_expired_ones_do_not_count(replicas: Sequence[TicketStore]) -> None:
    for n in range(TICKETS_PER_CALLER):
        await replicas[0].put(digest(n), ALICE, time.time() - 1)
    await replicas[0].put(digest(99), ALICE, soon())
    assert await replicas[1].take(digest(99), time.time()) == ALICE


async def test_of_too_many_at_once_on_two_replicas_as_many_are_kept_as_may_be(
    postgres_url: str,
) -> None:
    async with PostgresStore(postgres_url) as store, PostgresStore(postgres_url) as other:
        replicas = PostgresTickets(store), PostgresTickets(other)
        outcomes = await asyncio.gather(
            *(replicas[n % 2].put(digest(n), ALICE, soon()) for n in range(50)),
            return_exceptions=True,
        )
        refused = [one for one in outcomes if isinstance(one, TooManyRequests)]
        assert len(refused) == 50 - TICKETS_PER_CALLER
        assert outcomes.count(None) == TICKETS_PER_CALLER


async def test_expired_tickets_do_not_pile_up(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        tickets = PostgresTickets(store)
        for n in range(9):
            await tickets.put(digest(n), ALICE, time.time() - 1)
        await tickets.put(digest(9), ALICE, soon())
        found = await store.read(lambda c: c.execute("SELECT digest FROM tickets"))
        assert await found.fetchall() == [(digest(9),)]
