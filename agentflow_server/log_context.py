"""Which request, thread and run a line of the log belongs to."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("agentflow_request_id", default=None)
thread_id: ContextVar[str | None] = ContextVar("agentflow_thread_id", default=None)
run_id: ContextVar[str | None] = ContextVar("agentflow_run_id", default=None)

_IDS = {"run_id": run_id, "thread_id": thread_id, "request_id": request_id}


@contextmanager
def bind(
    *, request: str | None = None, thread: str | None = None, run: str | None = None
) -> Iterator[None]:
    """Lines logged inside carry these ids and no other.

    What is not given is cleared: the task of a run is started by a request and goes on with the
    runs of others.
    """
    tokens = (request_id.set(request), thread_id.set(thread), run_id.set(run))
    try:
        yield
    finally:
        for variable, token in zip((request_id, thread_id, run_id), tokens, strict=True):
            variable.reset(token)


class ContextFilter(logging.Filter):
    """Gives each record the ids of where it was written.

    It belongs to the handler: a logger's own filters do not see the records of its children.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, variable in _IDS.items():
            value = variable.get()
            if value is not None:
                # A record that names another run by itself is right.
                vars(record).setdefault(name, value)
        return True


def describe_ids(record: logging.LogRecord) -> str:
    """The ids of a record for a reader, ` run_id=… thread_id=…`; without those it tells anyway."""
    message = record.getMessage()
    fields = vars(record)
    return "".join(
        f" {name}={fields[name]}"
        for name in _IDS
        if fields.get(name) and str(fields[name]) not in message
    )
