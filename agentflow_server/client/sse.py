"""Reads a `text/event-stream` as its bytes arrive (WHATWG HTML, section 9.2)."""

from collections.abc import Iterator
from dataclasses import dataclass

from agentflow_server.client.errors import UnexpectedAnswer

MAX_EVENT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RawEvent:
    """An event as it was sent; `id` and `type` may be empty."""

    id: str
    type: str
    data: bytes


class EventParser:
    """`feed` it with what arrives; half an event at the end is never seen."""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._fields: dict[bytes, list[bytes]] = {}
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[RawEvent]:
        """Raises UnexpectedAnswer."""
        self._size += len(chunk)
        if self._size > MAX_EVENT_BYTES:
            raise UnexpectedAnswer("an event is too large")
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join((*self._line, end)).removesuffix(b"\r")
            self._line = []
            if line:
                name, _, value = line.partition(b":")
                self._fields.setdefault(name, []).append(value.removeprefix(b" "))
            else:
                yield from self._complete()
        self._line.append(rest)

    def _complete(self) -> Iterator[RawEvent]:
        fields, self._fields, self._size = self._fields, {}, 0
        if b"data" in fields:  # else a comment alone
            data = b"\n".join(fields[b"data"])
            yield RawEvent(_text(fields, b"id"), _text(fields, b"event"), data)


def _text(fields: dict[bytes, list[bytes]], name: bytes) -> str:
    return fields.get(name, [b""])[-1].decode("utf-8", "replace")
