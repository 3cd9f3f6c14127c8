"""Keeps one client's token fresh: renewed before it expires, once for all who wait for it."""

import logging
import time
from collections.abc import Callable

from agentflow_server.client.credentials import Credentials
from agentflow_server.client.errors import LoginFailed
from agentflow_server.client.steps import Steps, finish, pause, work
from agentflow_server.client.tokens import Token

log = logging.getLogger(__name__)

LOCK_SECONDS = 60.0
"""How long somebody else may take to renew a token that is shared."""
_LOOK_AGAIN = 0.02


class TokenKeeper:
    """The current token. Any number of threads, tasks and processes may ask at once: one of them
    renews it, and the others get what that one got."""

    def __init__(self, credentials: Credentials, leeway: float) -> None:
        self._credentials = credentials
        self._leeway = leeway
        self._current = credentials.known

    def is_valid(self) -> bool:
        """The token that would be sent now is not about to expire."""
        return self._current is not None and self._current.is_fresh(self._leeway)

    def get(self) -> Steps[Token]:
        """Raises LoginFailed."""
        current = self._current
        if current is not None and current.is_fresh(self._leeway):
            return current
        try:
            return (yield from self._renew(None))
        except LoginFailed as error:
            # It is renewed early in order that this need not be the end.
            if error.code == "unreachable" and current is not None and not current.is_expired():
                log.warning("the token could not be renewed yet: %s", error.detail)
                return current
            raise

    def replace(self, refused: Token) -> Steps[Token]:
        """Another token than the one that a server has refused, if there is any; else the same."""
        current = self._current
        if current is not None and current.access_token != refused.access_token:
            return current
        return (yield from self._renew(refused))

    def _renew(self, refused: Token | None) -> Steps[Token]:
        until = time.monotonic() + LOCK_SECONDS
        while (unlock := self._credentials.store.try_lock()) is None:
            if time.monotonic() > until:
                raise LoginFailed("somebody else has been renewing the token for too long")
            yield from pause(_LOOK_AGAIN)
        # From here to the end: a new refresh token that is not saved would be lost for ever.
        return (yield from finish(self._renew_locked(refused, unlock)))

    def _renew_locked(self, refused: Token | None, unlock: Callable[[], None]) -> Steps[Token]:
        try:
            stored = yield from work(self._credentials.store.load)
            if stored is None or not self._is_usable(stored, refused):
                stored = yield from self._credentials.obtain(stored)
                yield from work(lambda: self._credentials.store.save(stored))
                log.info("got a new token")
            self._current = stored
            return stored
        finally:
            unlock()

    def _is_usable(self, stored: Token, refused: Token | None) -> bool:
        """Somebody else has renewed it meanwhile. Raises LoginFailed."""
        if stored.source != self._credentials.source:
            raise LoginFailed(
                f"{self._credentials.store!r} holds the token of another login", code="token_store"
            )
        if refused is not None and stored.access_token == refused.access_token:
            return False
        return stored.is_fresh(self._leeway)
