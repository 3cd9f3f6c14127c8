"""Hashing and verifying passwords: Argon2id, a bounded number at a time."""

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pwdlib.hashers.argon2 import Argon2Hasher

from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.errors import InvalidRequest, TooManyRequests
from agentflow_server.users.hashes import PARAMETERS, Argon2id, make_dummy_hash
from agentflow_server.users.policy import encode_password

T = TypeVar("T")

AT_ONCE = max(1, min(4, os.cpu_count() or 1))
"""Each takes a core, and 19 MiB."""
WAITING = 32
"""More would only wait until they are given up: 32 take about a second of one core."""
_RETRY_AFTER = 1


class Verification(NamedTuple):
    """Whether the password is right, and whether its hash is to be made anew."""

    is_right: bool
    is_outdated: bool = False


class Passwords:
    """Whoever comes when too many wait gets TooManyRequests: memory and CPU stay bounded.

    Used from one event loop. A call that is cancelled keeps its place until it has really ended.
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        parameters: Argon2id = PARAMETERS,
    ) -> None:
        self._hasher = Argon2Hasher(
            time_cost=parameters.passes,
            memory_cost=parameters.memory,
            parallelism=parameters.lanes,
        )
        self._dummy = make_dummy_hash(parameters)
        self._threads = DaemonThreads(at_once)
        self._places = at_once + waiting

    async def hash(self, password: str) -> str:
        """For a password that the policy allows. Raises InvalidRequest, TooManyRequests."""
        exact = encode_password(password)
        return await self._run(lambda: self._hasher.hash(exact))

    async def verify(self, password: str, stored: str | None) -> Verification:
        """Takes as long without a stored hash, for a user who is not there, as with one.

        What cannot be a password is a wrong one, whoever it is tried for. Raises TooManyRequests.
        """
        try:
            exact = encode_password(password)
        except InvalidRequest:
            return Verification(is_right=False)
        verification = await self._run(lambda: self._verify(exact, stored or self._dummy))
        return verification if stored else Verification(is_right=False)

    def _verify(self, password: bytes, stored: str) -> Verification:
        if not self._hasher.verify(password, stored):
            return Verification(is_right=False)
        return Verification(is_right=True, is_outdated=self._hasher.check_needs_rehash(stored))

    async def _run(self, call: Callable[[], T]) -> T:
        if not self._places:
            raise TooManyRequests(retry_after=_RETRY_AFTER)
        self._places -= 1
        return await self._threads.run(call, ended=self._leave)

    def _leave(self) -> None:
        self._places += 1
