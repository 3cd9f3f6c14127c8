"""A stream goes on only as long as the credential that opened it."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.requests import HTTPConnection

from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.models import Event, Principal

RECHECK_SECONDS = 30.0
"""With the age of the list of revocations it is a minute at most until a revocation counts."""


async def while_admitted(
    events: AsyncGenerator[Event | None, None], request: HTTPConnection, caller: Principal
) -> AsyncGenerator[Event | None, None]:
    """The events, as long as the caller may stay.

    It ends early when his credential expires or is revoked: he comes back with the number of the
    event he saw last, and hears why.
    """
    door = request.app.state.door
    checked_at = time.monotonic()
    async with aclosing(events):
        async for event in events:
            if caller.expires_at is not None and time.time() >= caller.expires_at:
                door.dismiss(request)
                return
            if time.monotonic() - checked_at >= RECHECK_SECONDS:
                try:
                    await door.recheck(request)
                except (NotAuthenticated, AuthUnavailable):
                    return
                checked_at = time.monotonic()
            yield event
