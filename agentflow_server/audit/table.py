"""The audit log in a table of the database."""

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from agentflow_server.audit.chain import START, Chain, Link, find_link
from agentflow_server.audit.end import End
from agentflow_server.models import AuditEvent

log = logging.getLogger(__name__)


class Make(Protocol):
    """The lines to append, made from the present ones and `head`, the last that was appended.

    What has no head cannot tell when lines at its end are removed.
    """

    def __call__(
        self, newest_first: Iterable[str], head: str | None = None, /
    ) -> Sequence[str]: ...


class Extendable(Protocol):
    """What is needed of a database to write the log."""

    async def extend(self, make: Make, /) -> None:
        """Append what `make` returns; the last of it is the head.

        In one transaction that excludes any other writer; durable when this returns. Raises
        StoreUnavailable.
        """


class AuditTable(Extendable, Protocol):
    """Lines in the order of their positions, which count up."""

    async def read_head(self) -> str | None:
        """The last line that was appended, also when it is not there any more."""

    async def read_after(self, position: int, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the oldest first."""

    async def read_before(self, position: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """(position, line), the newest first; all of them with `position=None`."""


class AuditRows:
    """Appends rows to the table."""

    def __init__(self, table: Extendable, chain: Chain) -> None:
        self._table = table
        self._chain = chain

    async def open(self) -> None: ...

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Raises StoreUnavailable; then the table is as it was."""

        def make(newest_first: Iterable[str], head: str | None = None) -> Sequence[str]:
            found = find_link(newest_first) or START
            end = End(found, read_link(head) or found)
            if end.is_cut:
                log.error("the audit log: lines at its end were removed by somebody else")
            return self._chain.extend(end.link, [*end.report(), *events])[0]

        await self._table.extend(make)


def read_link(head: str | None) -> Link | None:
    return None if head is None else find_link([head])
