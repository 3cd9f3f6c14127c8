"""Where runs are executed, and how their readers learn what happened."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from agentflow_server.models import ActiveRun, Event, Stop


class Subscription(ABC):
    """A reader's place at the bus: bounded, so a slow reader loses events, not the server."""

    @abstractmethod
    async def receive(self, max_wait: float) -> Sequence[Event]:
        """Events published since the last call, at least one; `()` after `max_wait` seconds.

        There may be gaps: whoever sees one reads the store. Raises ServerStopping when the bus is
        closed and everything published before has been received.
        """


class EventBus(ABC):
    """Tells readers of a run what was stored. The store is the truth, the bus is only speed.

    It also carries short signals between the processes of one database, if there are several.
    """

    async def __aenter__(self) -> Self:
        """Raises StoreUnavailable."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    @abstractmethod
    def publish(self, events: Sequence[Event]) -> None:
        """Hand on events of one run that are already stored. Never blocks, never raises."""

    def wake_all(self) -> None:
        """Let every reader look into the store."""

    async def wait_for_readers(self, seconds: float) -> None:
        """Wait until nobody subscribes any more, for so long at most. At once where only this
        process publishes: nothing more is coming."""

    @abstractmethod
    def close(self) -> None:
        """The server stops: tell all readers, also those who come later."""

    @abstractmethod
    def subscribe(self, run_id: str) -> AbstractAsyncContextManager[Subscription]:
        """Everything published after entering is seen, or its loss is visible as a gap."""

    def tell(self, topic: str, body: str = "") -> None:
        """Let every other process know: soon, unless it gets lost. Never blocks, never raises.

        `body` is less than 1000 characters.
        """

    def listen(self, topic: str, hear: Callable[[str], None]) -> None:
        """From now on call `hear(body)` when another process has told something."""


class Engine(ABC):
    """Decides where and when claimed runs are executed."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Settle what a dead process left behind, then take up waiting runs."""

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None:
        """Let running runs finish for the grace period, then stop them; none stays `running`."""

    @abstractmethod
    async def drain(self) -> int:
        """The same, while the engine stays open; what waits in line stays there.

        The grace period begins with the first call. Returns how many agents go on although they
        were cancelled.
        """

    def problems(self) -> Sequence[str]:
        """What keeps runs from being executed right now."""
        return ()

    @abstractmethod
    async def dispatch(self, active: ActiveRun) -> None:
        """Execute the run soon, and after it whatever waits on its thread."""

    @abstractmethod
    def stop(self, run_id: str, how: Stop) -> None:
        """Let whoever executes the run know that it is marked to be stopped. Never raises."""

    @abstractmethod
    def reserve(self) -> bool:
        """Whether one more run can be executed here; its place is kept until `release`, which has
        to be followed by `dispatch` at once, if at all."""

    @abstractmethod
    def release(self) -> None:
        """Give back what `reserve` has kept."""

    @abstractmethod
    def note_waiting(self) -> None:
        """A run has been stored that waits for its time, or for room."""
