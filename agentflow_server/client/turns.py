"""What a client does with turns: send a message, answer a question, wait for it, watch it."""

from typing import Any, TypedDict, Unpack

from agentflow_server.client.answers import Turn
from agentflow_server.client.exchange import Call, path_of
from agentflow_server.client.following import SILENCE_SECONDS
from agentflow_server.client.operation import Listing, Operation
from agentflow_server.client.server import Server, creation, present
from agentflow_server.client.steps import Items, Steps
from agentflow_server.client.waiting import wait_for_turn
from agentflow_server.models import (
    Content,
    Event,
    JsonObject,
    OnBusy,
    Page,
    PendingInterrupt,
    Run,
    Stop,
)


class MessageOptions(TypedDict, total=False):
    """What can be said with a message; the server's documentation says what it means."""

    agent: str
    config: JsonObject
    metadata: JsonObject
    on_busy: OnBusy
    webhook: str


class TurnOperations:
    """Every method raises AgentflowClientError."""

    _server: Server

    @Operation
    def send(
        self,
        thread_id: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> Steps[Turn]:
        """Send a message and wait for the answer. Raises RunFailed when there is none."""
        path, body = path_of("threads", thread_id, "messages"), {"content": content, **options}
        patience = self._server.turn_timeout
        call = creation(path, body, idempotency_key, read_timeout=patience)
        return self._server.exchange.fetch(call, Turn)

    @Operation
    def start(
        self,
        thread_id: str,
        content: Content,
        *,
        after_seconds: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> Steps[Run]:
        """Send a message that is answered in the background."""
        return self._start(thread_id, content, idempotency_key, options, after_seconds)

    @Listing
    def stream(
        self,
        thread_id: str,
        content: Content,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> Items[Event]:
        """Send a message and watch what the agent does, to the end of the run or its question.

        The run is started before it is watched: whatever becomes of the connection, from then on
        no event is lost.
        """
        run = yield from self._start(thread_id, content, idempotency_key, options)
        yield from self._server.follower(thread_id, run.run_id).follow()

    @Listing
    def follow(self, thread_id: str, run_id: str, *, after: int = 0) -> Items[Event]:
        """A run's events with `seq` greater than `after`, to its end or its question."""
        return self._server.follower(thread_id, run_id, after=after).follow()

    @Operation
    def wait(self, thread_id: str, run_id: str, *, timeout: float | None = None) -> Steps[Turn]:
        """What the agent said in a run, when it has ended or asks something.

        Raises RunFailed, TimedOut after `timeout` seconds.
        """
        return wait_for_turn(self._server, thread_id, run_id, timeout)

    @Listing
    def list_runs(self, thread_id: str, *, page_size: int = 50) -> Items[Run]:
        """Newest first."""
        path = path_of("threads", thread_id, "runs")
        return self._server.list_items(path, Page[Run], limit=str(page_size))

    @Operation
    def get_run(self, thread_id: str, run_id: str) -> Steps[Run]:
        call = Call("GET", path_of("threads", thread_id, "runs", run_id), repeatable=True)
        return self._server.exchange.fetch(call, Run)

    @Operation
    def cancel_run(self, thread_id: str, run_id: str, *, action: Stop = "cancel") -> Steps[Run]:
        """Stop a run; `rollback` forgets its whole turn. It has ended if it has an `ended_at`."""
        path = path_of("threads", thread_id, "runs", run_id, "cancel")
        return self._server.exchange.fetch(Call("POST", path, {"action": action}), Run)

    @Listing
    def list_interrupts(self, *, page_size: int = 50) -> Items[PendingInterrupt]:
        """Everything that your agents wait for, newest first."""
        return self._server.list_items("/interrupts", Page[PendingInterrupt], limit=str(page_size))

    @Operation
    def resume(
        self,
        thread_id: str,
        run_id: str,
        value: Any = None,
        *,
        answers: JsonObject | None = None,
        webhook: str | None = None,
    ) -> Steps[Turn]:
        """Answer a run's only question with `value`, or several by their ids with `answers`, and
        wait for what it says next. Never sent twice: after ServerUnreachable, `wait` for the run.
        """
        call = _answer(
            thread_id,
            run_id,
            value,
            answers,
            webhook=webhook,
            read_timeout=self._server.turn_timeout,
        )
        return self._server.exchange.fetch(call, Turn)

    @Operation
    def start_resume(
        self,
        thread_id: str,
        run_id: str,
        value: Any = None,
        *,
        answers: JsonObject | None = None,
        webhook: str | None = None,
    ) -> Steps[Run]:
        """The same in the background."""
        call = _answer(thread_id, run_id, value, answers, webhook=webhook, background=True)
        return self._server.exchange.fetch(call, Run)

    @Listing
    def stream_resume(
        self,
        thread_id: str,
        run_id: str,
        value: Any = None,
        *,
        answers: JsonObject | None = None,
        webhook: str | None = None,
    ) -> Items[Event]:
        """The same, to watch what it does next."""
        call = _answer(
            thread_id,
            run_id,
            value,
            answers,
            webhook=webhook,
            stream=True,
            read_timeout=SILENCE_SECONDS,
        )
        return self._server.follower(thread_id, run_id, after=None).follow(call)

    def _start(
        self,
        thread_id: str,
        content: Content,
        key: str | None,
        options: MessageOptions,
        after_seconds: float | None = None,
    ) -> Steps[Run]:
        body = {"content": content, **options, "background": True}
        body |= present(after_seconds=after_seconds)
        call = creation(path_of("threads", thread_id, "messages"), body, key)
        return self._server.exchange.fetch(call, Run)


def _answer(
    thread_id: str,
    run_id: str,
    value: Any,
    answers: JsonObject | None,
    *,
    read_timeout: float | None = None,
    **how: str | bool | None,
) -> Call:
    given: JsonObject = {"value": value} if answers is None else {"answers": answers}
    path = path_of("threads", thread_id, "runs", run_id, "resume")
    return Call("POST", path, given | present(**how), read_timeout=read_timeout)
