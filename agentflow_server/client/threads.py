"""What a client does with threads, and with their states; and the agents there are."""

from collections.abc import Mapping
from typing import Any, Literal

import httpx2
from pydantic_core import to_json

from agentflow_server.client.answers import AgentInfo, AgentList, State
from agentflow_server.client.errors import NotFound
from agentflow_server.client.exchange import Call, path_of
from agentflow_server.client.operation import Listing, Operation
from agentflow_server.client.server import Server, creation, present
from agentflow_server.client.steps import Items, Steps
from agentflow_server.models import JsonObject, Message, Page, Thread, ThreadStatus


class ThreadOperations:
    """Every method raises AgentflowClientError."""

    _server: Server

    @Operation
    def create_thread(
        self,
        *,
        thread_id: str | None = None,
        metadata: JsonObject | None = None,
        if_exists: Literal["error", "return"] | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[Thread]:
        body = present(thread_id=thread_id, metadata=metadata, if_exists=if_exists)
        return self._server.exchange.fetch(creation("/threads", body, idempotency_key), Thread)

    @Operation
    def get_thread(self, thread_id: str) -> Steps[Thread]:
        call = Call("GET", path_of("threads", thread_id), repeatable=True)
        return self._server.exchange.fetch(call, Thread)

    @Listing
    def list_threads(
        self,
        *,
        status: ThreadStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
        page_size: int = 50,
    ) -> Items[Thread]:
        """Yours, newest first; `metadata` has members that theirs must have."""
        wanted = None if metadata is None else to_json(metadata).decode()
        return self._server.list_items(
            "/threads", Page[Thread], status=status, metadata=wanted, limit=str(page_size)
        )

    @Operation
    def update_thread(
        self, thread_id: str, *, name: str | None = None, metadata: JsonObject | None = None
    ) -> Steps[Thread]:
        """`metadata` is merged by top-level key; None removes a key."""
        call = Call("PATCH", path_of("threads", thread_id), present(name=name, metadata=metadata))
        return self._server.exchange.fetch(call, Thread)

    @Operation
    def delete_thread(self, thread_id: str) -> Steps[None]:
        """With everything of it."""
        call = Call("DELETE", path_of("threads", thread_id), repeatable=True)
        try:
            yield from self._server.exchange.ask(call, _ignore)
        except NotFound as error:
            if error.attempts == 1:
                raise
            # An attempt before did it, and its answer was lost.

    @Operation
    def copy_thread(
        self,
        thread_id: str,
        *,
        new_id: str | None = None,
        checkpoint_id: str | None = None,
        metadata: JsonObject | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[Thread]:
        """The conversation so far, or as far as a state of it, in a thread of its own."""
        body = present(thread_id=new_id, checkpoint_id=checkpoint_id, metadata=metadata)
        call = creation(path_of("threads", thread_id, "copy"), body, idempotency_key)
        return self._server.exchange.fetch(call, Thread)

    @Listing
    def list_messages(self, thread_id: str, *, page_size: int = 100) -> Items[Message]:
        """The conversation, oldest first."""
        path = path_of("threads", thread_id, "messages")
        return self._server.list_items(path, Page[Message], limit=str(page_size))

    @Operation
    def get_state(self, thread_id: str) -> Steps[State]:
        """The newest state of the thread's graph."""
        call = Call("GET", path_of("threads", thread_id, "state"), repeatable=True)
        return self._server.exchange.fetch(call, State)

    @Listing
    def list_history(self, thread_id: str, *, page_size: int = 20) -> Items[State]:
        """All of its states, newest first."""
        path = path_of("threads", thread_id, "history")
        return self._server.list_items(path, Page[State], limit=str(page_size))

    @Operation
    def list_agents(self) -> Steps[list[AgentInfo]]:
        call = Call("GET", "/agents", repeatable=True)
        return (yield from self._server.exchange.fetch(call, AgentList)).data


def _ignore(_: httpx2.Response) -> Steps[None]:
    yield from ()
