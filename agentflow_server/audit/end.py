"""Where a log ends, and whether that is where its last writer left it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from agentflow_server.audit.chain import Link
from agentflow_server.models import AuditEvent


@dataclass(frozen=True, slots=True)
class End:
    """`found` is the last line there is, `noted` the last one that is known to have been written."""

    found: Link
    noted: Link

    @property
    def is_cut(self) -> bool:
        """Lines were removed, or others put in their place. More of them than were noted may be
        there: a writer can die before it takes note."""
        return self.found.seq <= self.noted.seq and self.found != self.noted

    @property
    def link(self) -> Link:
        """What the next line is tied to: with lines that are missing, so that they are missed."""
        return self.noted if self.is_cut else self.found

    def report(self) -> Sequence[AuditEvent]:
        """What the log itself has to say about that."""
        if not self.is_cut:
            return ()
        details = {"found": str(self.found.seq), "written": str(self.noted.seq)}
        return [AuditEvent(time.time(), "audit.truncated", "error", details=details)]
