"""What goes on for as long as an engine is open."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentflow_server.errors import AgentflowError

log = logging.getLogger(__name__)


@asynccontextmanager
async def undisturbed(what: str) -> AsyncIterator[None]:
    """The next attempt is soon enough."""
    try:
        yield
    except AgentflowError:
        log.warning("%s has to wait: the database cannot be used", what)
    except Exception:  # the top of a background task
        log.exception("%s went wrong", what)
