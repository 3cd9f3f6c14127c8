"""Whether somebody is the user he says he is: password, second factor, and how often he may try."""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from agentflow_server.errors import TooManyRequests
from agentflow_server.interfaces import RateLimiter, UserStore
from agentflow_server.limits.address import limit_key
from agentflow_server.models import Quota, User, UserSecrets, normalise_username
from agentflow_server.token_server.errors import LoginRefused
from agentflow_server.users.login import find_verified_user
from agentflow_server.users.totp import find_step

if TYPE_CHECKING:
    # It needs an extra, and this module must not.
    from agentflow_server.users.passwords import Passwords

log = logging.getLogger(__name__)

PER_ACCOUNT = Quota(10, 300)
"""Failures, whether or not there is such an account."""
PER_SECOND_FACTOR = Quota(30, 86_400)
"""Wrong codes of somebody who knows the password: PER_ACCOUNT alone leaves him 2,880 of them, and
with three codes good at any time a chance in a hundred, each day."""


class LoginLimits:
    """Counts what was refused, so that nobody is stopped who gets it right.

    Attempts at an account that are on their way count as if they had failed: many at once are no
    more guesses.
    """

    def __init__(
        self, limiter: RateLimiter, per_address: Quota, per_account: Quota = PER_ACCOUNT
    ) -> None:
        self._limiter = limiter
        self._per_address = per_address
        self._per_account = per_account
        self._on_the_way: Counter[str] = Counter()

    @asynccontextmanager
    async def attempt(self, username: str, address: str) -> AsyncIterator[None]:
        """A LoginRefused that is raised inside is counted. Raises LoginRefused."""
        account = f"login-account {_account_key(username)}"
        origin = f"login-address {limit_key(address)}"
        await self._check(origin, self._per_address)
        await self._check(account, self._per_account)
        self._on_the_way[account] += 1
        try:
            yield
        except LoginRefused:
            await self._limiter.hit(origin, self._per_address)
            await self._limiter.hit(account, self._per_account)
            raise
        finally:
            self._on_the_way[account] -= 1
            if not self._on_the_way[account]:
                del self._on_the_way[account]

    async def check_guesses(self, user_id: str) -> None:
        """Raises LoginRefused, which does not look like a limit: that would say that the password
        was right."""
        left = await self._limiter.peek(_guesses_key(user_id), PER_SECOND_FACTOR)
        if not left.remaining:
            log.warning("too many wrong codes of a second factor today: user %s", user_id)
            raise LoginRefused(reason="rate_limited")

    async def count_guess(self, user_id: str) -> None:
        await self._limiter.hit(_guesses_key(user_id), PER_SECOND_FACTOR)

    async def _check(self, key: str, quota: Quota) -> None:
        left = await self._limiter.peek(key, quota)
        if left.remaining <= self._on_the_way[key]:
            raise LoginRefused(reason="rate_limited", retry_after=max(1, left.reset_after))


class Logins:
    def __init__(
        self,
        users: UserStore,
        passwords: "Passwords",
        limits: LoginLimits,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._limits = limits
        self._clock = clock

    async def verify(self, username: str, password: str, totp: str | None, *, address: str) -> User:
        """Raises LoginRefused."""
        try:
            async with self._limits.attempt(username, address):
                return await self._find_user(username, password, totp)
        except TooManyRequests as exc:
            raise LoginRefused(reason="busy", retry_after=exc.retry_after) from None

    async def _find_user(self, username: str, password: str, totp: str | None) -> User:
        found = await find_verified_user(self._users, self._passwords, username, password)
        if found is None:
            raise LoginRefused(reason="bad_credentials")
        await self._check_second_factor(*found, totp)
        return found[0]

    async def _check_second_factor(
        self, user: User, secrets: UserSecrets, totp: str | None
    ) -> None:
        if secrets.totp_secret is None:
            return
        if not totp:
            raise LoginRefused(reason="totp_missing")
        await self._limits.check_guesses(user.user_id)
        step = find_step(secrets.totp_secret, totp, self._clock())
        if step is None:
            await self._limits.count_guess(user.user_id)
            raise LoginRefused(reason="bad_totp")
        if not await self._users.accept_totp_step(user.user_id, step):
            raise LoginRefused(reason="totp_replayed")


def _guesses_key(user_id: str) -> str:
    return f"login-totp {user_id}"


def _account_key(username: str) -> str:
    """One for all spellings of a name, and short; nobody finds a name in a shared limiter."""
    with suppress(ValueError):  # nobody's name, but whoever tries it is not told so
        username = normalise_username(username)
    return hashlib.sha256(username.encode(errors="replace")).hexdigest()[:32]
