"""Tickets: what a browser shows instead of a token when it opens a WebSocket. Each works once."""

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from fastapi import APIRouter, Request, Response

from agentflow_server.errors import NotAuthenticated, TooManyRequests
from agentflow_server.models import Frozen, Principal
from agentflow_server.web.parameters import json_response
from agentflow_server.web.secured import Caller, SecuredRoute

TICKET_SECONDS = 60.0
TICKETS_PER_CALLER = 32
"""How many may be unused at a time."""
UNASKED_SECONDS = 60.0
"""How long what came of a ticket may last without the credential that its issuer is asked about."""

router = APIRouter(prefix="/tickets", tags=["tickets"], route_class=SecuredRoute)


class TicketStore(Protocol):
    """Keeps tickets that nobody has used yet, by their SHA-256: it never sees one."""

    async def put(self, digest: bytes, principal: Principal, expires_at: float) -> None:
        """Raises TooManyRequests when the caller has too many."""

    async def take(self, digest: bytes, moment: float) -> Principal | None:
        """Whose it is, unless it expired before `moment`. Of several calls, one gets it."""


class MemoryTickets(TicketStore):
    """Tickets of this process. One that another replica issued is unknown here."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Principal, float]] = {}
        self._counts: Counter[str] = Counter()

    async def put(self, digest: bytes, principal: Principal, expires_at: float) -> None:
        self._drop_expired(time.time())
        if self._counts[principal.id] >= TICKETS_PER_CALLER:
            raise TooManyRequests(retry_after=int(TICKET_SECONDS))
        self._kept[digest] = principal, expires_at
        self._counts[principal.id] += 1

    async def take(self, digest: bytes, moment: float) -> Principal | None:
        found = self._kept.pop(digest, None)
        if found is None:
            return None
        principal, expires_at = found
        self._forget(principal)
        return principal if moment < expires_at else None

    def _drop_expired(self, moment: float) -> None:
        # In the order in which they came: one that ends sooner than the one before it stays with
        # it, for a minute at most.
        while self._kept:
            digest, (principal, expires_at) = next(iter(self._kept.items()))
            if moment < expires_at:
                return
            del self._kept[digest]
            self._forget(principal)

    def _forget(self, principal: Principal) -> None:
        self._counts[principal.id] -= 1
        if not self._counts[principal.id]:
            del self._counts[principal.id]


class Ticket(Frozen):
    """Good for one WebSocket, until `expires_at`."""

    ticket: str
    expires_at: datetime


class Tickets:
    """Issues tickets and takes them back. A ticket never outlives the token it was asked with."""

    def __init__(self, store: TicketStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def issue(self, principal: Principal) -> Ticket:
        """Raises TooManyRequests."""
        text = secrets.token_urlsafe(32)
        now = self._clock()
        principal = _bounded(principal, now)
        expires_at = now + TICKET_SECONDS
        if principal.expires_at is not None:
            expires_at = min(expires_at, principal.expires_at)
        await self._store.put(_digest(text), principal, expires_at)
        return Ticket(ticket=text, expires_at=datetime.fromtimestamp(expires_at, UTC))

    async def redeem(self, text: str) -> Principal:
        """Raises NotAuthenticated: it is unknown, used or expired."""
        principal = await self._store.take(_digest(text), self._clock())
        if principal is None:
            raise NotAuthenticated(reason="bad_ticket")
        return principal


def _bounded(principal: Principal, now: float) -> Principal:
    """An opaque token that its issuer revokes is on no list of ours, and a ticket does not keep
    it: nobody could be asked again whether it is still good."""
    if principal.method != "introspection":
        return principal
    end = now + UNASKED_SECONDS
    if principal.expires_at is not None:
        end = min(end, principal.expires_at)
    return replace(principal, expires_at=end)


def _digest(text: str) -> bytes:
    # Nobody guesses 256 random bits: a slow hash would protect nothing.
    return hashlib.sha256(text.encode(errors="replace")).digest()


@router.post("", response_model=Ticket, summary="Get a ticket for one WebSocket")
async def create_ticket(request: Request, caller: Caller) -> Response:
    tickets: Tickets = request.app.state.tickets
    return json_response(await tickets.issue(caller))
