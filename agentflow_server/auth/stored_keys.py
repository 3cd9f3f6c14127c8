"""The token server's own keys: read from the database, and read again often enough."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agentflow_server.auth.key_set import KeySet, KeySource
from agentflow_server.auth.keys import CURVES, BadKey, VerifyingKey, accept_public_key
from agentflow_server.errors import AuthUnavailable
from agentflow_server.interfaces import GrantStore
from agentflow_server.models import SigningKey

log = logging.getLogger(__name__)

MAX_AGE = 30.0
"""Seconds after which keys are not used before they were read again."""
USABLE_FOR = 60.0
"""Seconds for which they are, when they cannot be read: one that was removed may be among them."""
MIN_INTERVAL = 1.0
"""Seconds between two readings on account of tokens whose key is not known, or of failures."""
_PATIENCE = 5.0


class StoredKeys(KeySource):
    """What `agentflow auth rotate-keys` changes, every process notices within MAX_AGE."""

    def __init__(self, store: GrantStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._keys: Sequence[SigningKey] = ()
        self._set: KeySet | None = None
        self._loaded_at = self._tried_at = float("-inf")
        self._loading: asyncio.Task[None] | None = None

    def current(self, now: float) -> KeySet:
        # A clock that is set back makes them as old as one that is set forward.
        if self._set is None or abs(now - self._loaded_at) > USABLE_FOR:
            raise AuthUnavailable(reason="keys_unavailable")
        return self._set

    def is_overdue(self, now: float) -> bool:
        return abs(now - self._loaded_at) >= MAX_AGE

    async def renew(self, now: float) -> bool:
        before = self._set
        if self._loading is None:
            if abs(now - self._tried_at) < MIN_INTERVAL:
                return False
            self._tried_at = now
            self._loading = asyncio.create_task(self._load(now))
        # Neither cancelled with this request nor waited for without end.
        await asyncio.wait({self._loading}, timeout=_PATIENCE)
        return self._set is not before

    def problems(self) -> Sequence[str]:
        if self._set is None:
            return ("the token server's keys cannot be read from the database",)
        return ()

    async def open(self) -> None:
        """Read them; a failure is logged, and tried again when the first token comes."""
        await self.renew(self._clock())

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    async def list_keys(self, now: float) -> Sequence[SigningKey]:
        """All there are, oldest first. Raises AuthUnavailable."""
        if self.is_overdue(now):
            await self.renew(now)
        self.current(now)
        return self._keys

    async def _load(self, now: float) -> None:
        try:
            keys = await self._store.list_signing_keys()
        except Exception:
            # Background work: `current` decides by the age of the keys what becomes of it.
            log.exception("the token server's keys could not be read")
        else:
            if self._set is None or keys != self._keys:
                # Else the same object: what was verified with it stays verified.
                self._keys, self._set = (
                    keys,
                    KeySet(filter(None, map(_read_public, keys)), algorithms=CURVES),
                )
            self._loaded_at = now
        finally:
            self._loading = None


def find_signing_key(keys: Sequence[SigningKey], now: float) -> SigningKey | None:
    """The newest whose time has come; the first to come, when a clock is wrong."""
    moment = datetime.fromtimestamp(now, UTC)
    good = [key for key in keys if key.retires_at is None or key.retires_at > moment]
    begun = [key for key in good if key.signs_from <= moment]
    return begun[-1] if begun else next(iter(good), None)


def read_private_key(key: SigningKey) -> ec.EllipticCurvePrivateKey:
    """Raises BadKey, with a text that repeats nothing secret."""
    try:
        private = load_pem_private_key(key.private_pem.encode(), password=None)
    except (ValueError, TypeError):
        raise BadKey(f"the signing key {key.kid} cannot be read") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise BadKey(f"the signing key {key.kid} is not an EC key")
    accept_public_key(private.public_key(), key.algorithm)
    return private


def _read_public(key: SigningKey) -> VerifyingKey | None:
    try:
        return VerifyingKey(key.algorithm, read_private_key(key).public_key(), key.kid)
    except BadKey as exc:
        log.error("%s: tokens signed with it are refused", exc)  # noqa: TRY400 – no trace of a key
        return None
