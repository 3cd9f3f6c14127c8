"""Whether a log is as it was written: which lines were changed, are missing or out of place."""

from collections.abc import Iterator

from agentflow_server.audit.chain import START, Chain, Link, SealedLine, parse_line
from agentflow_server.audit.end import End


class Verification:
    """Fed with all lines, the oldest first."""

    def __init__(self, chain: Chain, *, part: bool = False) -> None:
        """With `part` the first line need not be the first of the log."""
        self._chain = chain
        self._is_first = part
        self.lines = 0
        self.last: Link = START

    def check(self, text: str) -> Iterator[str]:
        """What is wrong with the next line, in words."""
        self.lines += 1
        line = parse_line(text)
        if line is None:
            yield "is not a line of an audit log"
            return
        if not self._chain.is_genuine(line):
            yield f"seq {line.seq}: was changed, or written with another key"
        if not self._is_first:
            yield from self._check_place(line)
        self._is_first = False
        # One that was moved here from further up does not make the next ones wrong.
        if line.seq > self.last.seq:
            self.last = line.link

    def check_end(self, noted: Link) -> Iterator[str]:
        """What is missing after the lines so far, when `noted` is the last that was written."""
        # A part that is empty yet may follow any other.
        if self._is_first or not End(self.last, noted).is_cut:
            return
        if self.last == START:
            yield (
                f"is empty, though {noted.seq} lines were written: if it was begun anew after a "
                "rotation, name its older parts before it"
            )
        elif self.last.seq == noted.seq:
            yield f"seq {noted.seq}: is not the line that was written last"
        else:
            yield f"ends with seq {self.last.seq}, though seq {noted.seq} was written: its end was cut off"

    def _check_place(self, line: SealedLine) -> Iterator[str]:
        expected = self.last.seq + 1
        if line.seq > expected:
            missing = (
                f"seq {expected}" if line.seq == expected + 1 else f"{expected}–{line.seq - 1}"
            )
            yield f"seq {line.seq}: before it {missing} is missing"
        elif line.seq < expected:
            yield f"seq {line.seq}: is out of place, or there twice"
        elif line.prev != self.last.hash:
            yield f"seq {line.seq}: does not continue the line before it; one of the two was changed"
