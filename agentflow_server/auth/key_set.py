"""Which keys a token may have been signed with, and where they come from."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence

from agentflow_server.auth.keys import VerifyingKey


class KeySet:
    """Keys in the order in which they are tried; `algorithms` are those a token may name.

    A key is found by its name and its algorithm together, so a token can never choose to have a
    public key used as a shared secret.
    """

    def __init__(
        self, keys: Iterable[VerifyingKey], *, algorithms: Iterable[str] | None = None
    ) -> None:
        """Raises ValueError when two keys have one name and one algorithm."""
        self.keys = tuple(keys)
        self.algorithms = frozenset(
            algorithms if algorithms is not None else (key.algorithm for key in self.keys)
        )
        self._named: dict[str, dict[str, VerifyingKey]] = defaultdict(dict)
        for key in self.keys:
            if key.key_id is None:
                continue
            if key.algorithm in self._named[key.key_id]:
                raise ValueError("two keys have the same kid")
            self._named[key.key_id][key.algorithm] = key
        self._all = _by_algorithm(self.keys)
        self._nameless = _by_algorithm(key for key in self.keys if key.key_id is None)

    def find(self, key_id: str | None, algorithm: str) -> Sequence[VerifyingKey]:
        """The keys to try: the one of that name; without a name, each key of the algorithm.

        A name nobody knows may be the signer's own for a key that has none here.
        """
        if key_id is None:
            return self._all.get(algorithm, ())
        named = self._named.get(key_id)
        if named is None:
            return self._nameless.get(algorithm, ())
        return (named[algorithm],) if algorithm in named else ()

    def is_name(self, key_id: str | None) -> bool:
        return key_id in self._named


def _by_algorithm(keys: Iterable[VerifyingKey]) -> dict[str, Sequence[VerifyingKey]]:
    found: dict[str, list[VerifyingKey]] = defaultdict(list)
    for key in keys:
        found[key.algorithm].append(key)
    return {algorithm: tuple(group) for algorithm, group in found.items()}


class KeySource(ABC):
    """Keeps a key set at hand. `now` is the time of the one who asks, in seconds since 1970."""

    @abstractmethod
    def current(self, now: float) -> KeySet:
        """The same object as long as the keys are the same. Raises AuthUnavailable."""

    def is_overdue(self, now: float) -> bool:
        """Whether to call `renew` before the keys are used."""
        return False

    async def renew(self, now: float) -> bool:
        """Look for newer keys, unless that was done a moment ago; whether there are any."""
        return False

    def problems(self) -> Sequence[str]:
        """Why there are no keys, if there are none."""
        return ()

    async def open(self) -> None:
        """Called once, before the first use."""

    async def close(self) -> None:
        """Called once, after the last use."""


class FixedKeys(KeySource):
    """Keys that were read at start-up."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def current(self, now: float) -> KeySet:
        return self._keys
