"""Events as a `text/event-stream` (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from pydantic_core import to_json
from starlette.responses import StreamingResponse

from agentflow_server.models import Event

SIGN_OF_LIFE = b": still here\n\n"


class EventStream(StreamingResponse):
    """A run's events; `id` is the event's sequence number, None becomes a comment."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event | None, None]) -> None:
        super().__init__(_lines(events), headers={"X-Accel-Buffering": "no"})


async def _lines(events: AsyncGenerator[Event | None, None]) -> AsyncIterator[bytes]:
    async with aclosing(events):
        async for event in events:
            yield SIGN_OF_LIFE if event is None else format_event(event)


def format_event(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.seq,
        event.type.encode(),
        to_json(event.data),
    )
