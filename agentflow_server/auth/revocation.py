"""Who is refused although the credential verifies: a token, or all older ones of a user."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.interfaces import CredentialStore
from agentflow_server.models import Principal

log = logging.getLogger(__name__)

USABLE_FOR = 60.0
"""Seconds after which a list that could not be renewed is not believed any more."""

_RETRY_AFTER = 5.0
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class _Revoked:
    tokens: frozenset[tuple[str, str | None]] = frozenset()
    """With the issuer; None stands for any."""
    users: dict[str, float] = field(default_factory=dict)
    """What was issued before this time is refused."""

    def includes(self, principal: Principal) -> bool:
        if self.tokens:
            # A token falls with its session, of which the token server gives it the id.
            names = [principal.token_id, principal.claims.get("sid")]
            issuers = {None, principal.issuer}
            pairs = [
                (name, issuer) for name in names if isinstance(name, str) for issuer in issuers
            ]
            if not self.tokens.isdisjoint(pairs):
                return True
        before = self.users.get(principal.id)
        return before is not None and (principal.issued_at is None or principal.issued_at < before)


class Revocations:
    """The list of revocations in memory, never older than a minute.

    From an age of `max_age` on it is renewed in the background, by one reader at a time, while
    requests go on with what is known; from `USABLE_FOR` on they wait for it. `clock` measures the
    age and must not be set back.
    """

    def __init__(
        self,
        store: CredentialStore,
        *,
        max_age: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._max_age = max_age
        self._clock = clock
        self._wall_clock = wall_clock
        self._revoked = _Revoked()
        self._loaded_at = self._tried_at = -math.inf
        self._loading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the list. A failure is logged, and tried again when the first request comes."""
        await self._load()

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    async def check(self, principal: Principal) -> None:
        """Raises NotAuthenticated, or AuthUnavailable when the list is too old to say."""
        age = self._clock() - self._loaded_at
        if age >= self._max_age:
            loading = self._start_loading()
            if age >= USABLE_FOR:
                await self._wait(loading)
        if self._revoked.includes(principal):
            raise NotAuthenticated(reason="revoked")

    async def _wait(self, loading: asyncio.Task[None] | None) -> None:
        if loading is not None:
            # Neither cancelled with this request nor waited for without end.
            await asyncio.wait({loading}, timeout=_PATIENCE)
        if self._clock() - self._loaded_at >= USABLE_FOR:
            raise AuthUnavailable(reason="revocations_unavailable")

    def _start_loading(self) -> asyncio.Task[None] | None:
        """The task that renews the list; None when the last one has failed only just now."""
        if self._loading is not None and not self._loading.done():
            return self._loading
        if self._clock() - self._tried_at < _RETRY_AFTER:
            return None
        self._loading = asyncio.create_task(self._load())
        return self._loading

    async def _load(self) -> None:
        self._tried_at = started = self._clock()
        try:
            listed = await self._store.list_revocations(self._wall_clock())
        except Exception:
            # Background work: `check` decides by the age of the list what becomes of it.
            log.exception("the list of revocations could not be read")
            return
        users: dict[str, float] = {}
        for entry in listed:
            if entry.user_id is not None:
                users[entry.user_id] = max(entry.at, users.get(entry.user_id, entry.at))
        tokens = frozenset(
            (entry.token_id, entry.issuer) for entry in listed if entry.token_id is not None
        )
        self._revoked, self._loaded_at = _Revoked(tokens, users), started
