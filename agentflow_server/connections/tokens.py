"""Keeps the tokens of one connection: renewed early, asked for once however many need them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentflow_server.config.fields import SCOPE_PATTERN
from agentflow_server.connections.token_endpoint import GrantedToken, TokenEndpoint, TokenRefused
from agentflow_server.errors import ConnectionUnavailable

EARLY_SECONDS = 60.0
"""A token is renewed so long before its end, but not before three quarters of its life."""
LAST_SECONDS = 2.0
"""A token that ends so soon may end on its way."""
MIN_AGE = 5.0
"""A token that is refused at this age would be refused again if it were another one."""
MAX_PAUSE = 30.0
MAX_SCOPES = 64
"""So many sets of scopes are remembered."""
PATIENCE_SECONDS = 60.0
"""So long another thread waits for the event loop, which may have stopped."""

Scopes = tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """What is known for one set of scopes. Changed in the server's event loop alone."""

    token: GrantedToken | None = None
    task: asyncio.Task[GrantedToken | None] | None = None
    reason: str = ""
    failures: int = 0
    not_before: float = 0.0

    def find_fresh(self, now: float) -> str | None:
        token = self.token
        if token is None:
            return None
        life = token.expires_at - token.asked_at
        return token.text if now < token.expires_at - min(EARLY_SECONDS, life / 4) else None

    def find_usable(self, now: float) -> str | None:
        token = self.token
        return token.text if token is not None and now < token.expires_at - LAST_SECONDS else None


class Tokens:
    """Asks in the event loop in which it was opened, whoever needs a token."""

    def __init__(
        self,
        name: str,
        endpoint: TokenEndpoint,
        default: Sequence[str],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._default = tuple(default)
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entries: dict[Scopes, _Entry] = {}

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        self._loop = None
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()
        await self._endpoint.close()

    async def get(self, scopes: Sequence[str] | None) -> str:
        key = self._key(scopes)
        if found := self._find(key):
            return found
        loop = self._loop
        if loop is None:
            raise self._closing()
        if asyncio.get_running_loop() is loop:
            return await self._renew(key)
        future = asyncio.run_coroutine_threadsafe(self._renew(key), loop)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._closing() from None

    def get_sync(self, scopes: Sequence[str] | None) -> str:
        """Raises RuntimeError in the event loop itself, which would wait for itself."""
        key = self._key(scopes)
        loop = self._loop
        if loop is None:
            raise self._closing()
        if _running_loop() is loop:
            raise RuntimeError("the synchronous form blocks the event loop: await the other one")
        if found := self._find(key):
            return found
        future = asyncio.run_coroutine_threadsafe(self._renew(key), loop)
        try:
            return future.result(PATIENCE_SECONDS)
        except TimeoutError:
            future.cancel()
            raise self._closing() from None

    def drop(self, credential: str) -> bool:
        for entry in tuple(self._entries.values()):
            token = entry.token
            if token is not None and token.text == credential:
                if self._clock() < token.asked_at + MIN_AGE:
                    return False
                entry.token = None
        return True

    def _key(self, scopes: Sequence[str] | None) -> Scopes:
        if scopes is None:
            return self._default
        if isinstance(scopes, str) or not all(SCOPE_PATTERN.fullmatch(scope) for scope in scopes):
            raise ValueError('expected a list of scopes like ["invoices:read"]')
        return tuple(sorted(set(scopes)))

    def _find(self, key: Scopes) -> str | None:
        entry = self._entries.get(key)
        return None if entry is None else entry.find_fresh(self._clock())

    async def _renew(self, key: Scopes) -> str:
        """Everybody who comes meanwhile waits for the same answer."""
        entry = self._entries.get(key) or self._add(key)
        if found := entry.find_fresh(self._clock()):
            return found
        if entry.task is None and self._clock() >= entry.not_before and self._loop is not None:
            entry.task = asyncio.create_task(self._ask(key, entry))
        if (task := entry.task) is not None:
            # Not awaited itself: whoever is cancelled must not cancel it for the others.
            await asyncio.wait({task})
            if not task.cancelled() and (token := task.result()):
                return token.text  # however soon it ends
        if found := entry.find_usable(self._clock()):
            return found
        if self._loop is None:
            raise self._closing()
        raise ConnectionUnavailable(self._name, entry.reason)

    async def _ask(self, key: Scopes, entry: _Entry) -> GrantedToken | None:
        try:
            entry.token = token = await self._endpoint.ask(key)
            entry.failures = 0
            return token
        except TokenRefused as exc:
            entry.reason = exc.reason
            # Else everybody who needs a token would ask a server that is down.
            entry.not_before = self._clock() + min(MAX_PAUSE, 2.0**entry.failures)
            entry.failures = min(entry.failures + 1, 10)
            return None
        finally:
            entry.task = None

    def _closing(self) -> ConnectionUnavailable:
        return ConnectionUnavailable(self._name, "closing")

    def _add(self, key: Scopes) -> _Entry:
        if len(self._entries) >= MAX_SCOPES:
            idle = (key for key, entry in self._entries.items() if entry.task is None)
            self._entries.pop(next(idle, ()), None)
        entry = self._entries[key] = _Entry()
        return entry


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
