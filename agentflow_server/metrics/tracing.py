"""What there is to trace, and the traces that go nowhere."""

from collections.abc import MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from agentflow_server.models import RunStatus


class Span:
    """A request or a run in a trace, or nothing at all."""

    traceparent: str | None = None
    """How others refer to it (W3C Trace Context): stored with the runs that it asks for."""

    def answered(self, status: int) -> None:
        """The request's scope has been routed by now."""

    def ended(self, status: RunStatus, code: str | None = None) -> None:
        """How the run ended; `code` is that of its error."""


NO_SPAN = Span()
_NOTHING = nullcontext(NO_SPAN)


class Tracing:
    """Traces nothing: it stands in where traces are off.

    A span holds ids, names, codes and numbers. Texts of exceptions, prompts, answers, tokens and
    claims have no way into one.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    def request_span(self, scope: MutableMapping[str, Any]) -> AbstractContextManager[Span]:
        """Around a whole request; its span's `traceparent` is in `agentflow.traceparent`, too."""
        return _NOTHING

    def run_span(
        self,
        traceparent: str | None,
        *,
        run_id: str,
        thread_id: str,
        agent: str,
        attempt: int = 1,
    ) -> AbstractContextManager[Span]:
        """Around the execution of a run, wherever it happens.

        `traceparent` is that of the request that asked for it, and becomes the span's parent.
        """
        return _NOTHING
