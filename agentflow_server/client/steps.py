"""What a conversation with a server is made of, one step at a time, whoever takes the steps.

All that the client knows is written once, as generators of steps that do no I/O. `drivers` takes
the steps, in the caller's thread or on his event loop.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import httpx2

from agentflow_server.errors import AgentflowError

T = TypeVar("T")

FAILURES = (httpx2.RequestError, AgentflowError)
"""What the steps themselves are told of, as they may know what to do; anything else ends them."""


@dataclass(frozen=True, slots=True, eq=False)
class Send:
    """Send a request; the outcome is the response, its body still to come. It takes the place of
    the response before. Raises httpx2.RequestError."""

    request: httpx2.Request


@dataclass(frozen=True, slots=True)
class Read:
    """The next piece of the body, None at its end. Raises httpx2.RequestError."""


@dataclass(frozen=True, slots=True)
class Load:
    """Read all of the body, so that `response.content` is there. Raises httpx2.RequestError."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Call a function that may block, or that returns an awaitable where there is a loop."""

    do: Callable[[], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Finish:
    """Take these steps to their end, also when whoever waits for them is cancelled."""

    steps: Generator["Step", Any, Any]


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """One more item for whoever iterates."""

    item: T


Step = Send | Read | Load | Pause | Work | Finish
Steps: TypeAlias = Generator[Step, Any, T]
"""Steps to a result."""
Items: TypeAlias = Generator[Step | Emit[T], Any, None]
"""Steps that have results on their way."""


def send(request: httpx2.Request) -> Steps[httpx2.Response]:
    response: httpx2.Response = yield Send(request)
    return response


def read() -> Steps[bytes | None]:
    chunk: bytes | None = yield Read()
    return chunk


def load() -> Steps[None]:
    yield Load()


def pause(seconds: float) -> Steps[None]:
    yield Pause(seconds)


def work(do: Callable[[], T]) -> Steps[T]:
    result: T = yield Work(do)
    return result


def finish(steps: Steps[T]) -> Steps[T]:
    result: T = yield Finish(steps)
    return result


def emit_result(steps: Steps[T]) -> Items[T]:
    yield Emit((yield from steps))


class Flow(Generic[T]):
    """Steps that are being taken: `step` is the next one, None after the last."""

    def __init__(self, steps: Items[T]) -> None:
        self._steps = steps
        self.step: Step | Emit[T] | None = None
        self.give(None)

    def give(self, outcome: Any) -> None:
        """The outcome of the step that was taken."""
        self._move(lambda: self._steps.send(outcome))

    def fail(self, error: httpx2.RequestError | AgentflowError) -> None:
        """The step that was taken came to nothing."""
        self._move(lambda: self._steps.throw(error))

    def close(self) -> None:
        self._steps.close()

    def _move(self, forward: Callable[[], Step | Emit[T]]) -> None:
        try:
            self.step = forward()
        except StopIteration:
            self.step = None


def gather(items: Items[T], wanted: Callable[[T], bool] = lambda _: True) -> Steps[list[T]]:
    """The items that are wanted, all at once."""
    found: list[T] = []
    with closing(Flow(items)) as flow:
        while flow.step is not None:
            if isinstance(flow.step, Emit):
                if wanted(flow.step.item):
                    found.append(flow.step.item)
                flow.give(None)
                continue
            try:
                outcome = yield flow.step
            except FAILURES as error:
                flow.fail(error)
            else:
                flow.give(outcome)
    return found
