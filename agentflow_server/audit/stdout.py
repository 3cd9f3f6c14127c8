"""The audit log on the standard output, for whoever collects that."""

import sys
from collections.abc import Sequence

from agentflow_server.audit.chain import START, Chain
from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.models import AuditEvent


class AuditStream:
    """Each process begins a chain of its own: nobody can read back what was printed."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._link = START
        self._threads = DaemonThreads(1)

    async def open(self) -> None: ...

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Raises OSError."""
        lines, link = self._chain.extend(self._link, events)
        # In a thread, because a pipe that nobody reads blocks.
        await self._threads.run(lambda: _print(lines))
        self._link = link


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
