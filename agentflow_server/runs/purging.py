"""Deletes hidden threads, here and in the frameworks of their agents."""

import logging
from collections.abc import Mapping

from agentflow_server.interfaces import Agent, Store

log = logging.getLogger(__name__)


async def purge_thread(
    store: Store, agents: Mapping[str, Agent], thread_id: str, agent: str | None
) -> None:
    try:
        if agent is not None and agent in agents:
            await agents[agent].forget(thread_id)
        await store.purge_thread(thread_id)
    except Exception:  # the user's checkpointer may raise anything; the thread stays hidden
        log.exception("thread %s is not wholly deleted: this is tried again later", thread_id)
