"""The audit log in a table of the database."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from agentflow_server.audit.chain import START, Chain, find_link
from agentflow_server.models import AuditEvent


class AuditTable(Protocol):
    """What is needed of a database: lines in the order of their positions, which count up."""

    async def extend(self, make: Callable[[Iterable[str]], Sequence[str]], /) -> None:
        """Append what `make` returns when it is given the present lines, the newest first.

        In one transaction that excludes any other writer; durable when this returns.
        """

    async def read_after(self, position: int, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the oldest first."""

    async def read_before(self, position: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the newest first; all of them with `position=None`."""


class AuditRows:
    """Appends rows to the table."""

    def __init__(self, table: AuditTable, chain: Chain) -> None:
        self._table = table
        self._chain = chain

    async def open(self) -> None: ...

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Raises whatever the database raises."""

        def make(newest_first: Iterable[str]) -> Sequence[str]:
            return self._chain.extend(find_link(newest_first) or START, events)[0]

        await self._table.extend(make)
