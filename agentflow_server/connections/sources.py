"""Where a credential comes from: it is there from the start, or has to be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Source(Protocol):
    """Gives a credential; whichever thread and event loop asks."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, scopes: Sequence[str] | None) -> str:
        """Raises ConnectionUnavailable."""

    def get_sync(self, scopes: Sequence[str] | None) -> str:
        """Raises ConnectionUnavailable."""

    def drop(self, credential: str) -> bool:
        """The API has refused it. True: another one can be asked for."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A credential of the environment."""

    name: str
    credential: str = field(repr=False)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def get(self, scopes: Sequence[str] | None) -> str:
        return self.get_sync(scopes)

    def get_sync(self, scopes: Sequence[str] | None) -> str:
        if scopes is not None:
            raise ValueError(f"connection {self.name!r} has no scopes to choose from")
        return self.credential

    def drop(self, credential: str) -> bool:
        return False
