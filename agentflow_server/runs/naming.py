"""Gives threads readable names, in the background."""

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable

from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.errors import ConfigError
from agentflow_server.importing import count_positional, is_async_callable, load
from agentflow_server.interfaces import Store
from agentflow_server.models import ActiveRun, Content, JsonObject

log = logging.getLogger(__name__)

GenerateName = Callable[[list[JsonObject]], Awaitable[str]]
"""From the thread's first messages, in OpenAI's shape, to its name."""

MAX_NAME_LENGTH = 60
GENERATOR_SECONDS = 30.0
GENERATOR_THREADS = 4
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")


class Namer:
    """Owns the naming tasks; `async with` waits for those that are under way, for a moment."""

    def __init__(self, store: Store, generate: GenerateName | None = None) -> None:
        self._store = store
        self._generate = generate
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Namer":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=1.0)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def name_later(self, active: ActiveRun) -> None:
        """Name the thread of its first run, unless somebody does so before us."""
        task = asyncio.create_task(self._name(active))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _name(self, active: ActiveRun) -> None:
        try:
            name = await self._find_name(active)
            if name:
                await self._store.name_thread(active.run.thread_id, name)
        except Exception:  # the top of a background task
            log.exception("thread %s cannot be named", active.run.thread_id)

    async def _find_name(self, active: ActiveRun) -> str:
        fallback = shorten(text_of(active.message.content))
        if self._generate is None:
            return fallback
        messages = [
            {"role": message.role, "content": message.content}
            for message in await self._store.run_messages(active.run.run_id)
        ]
        try:
            async with asyncio.timeout(GENERATOR_SECONDS):
                return shorten(await self._generate(messages)) or fallback
        except Exception:  # the user's generator; the built-in name is better than none
            log.exception("thread_name_generator failed for thread %s", active.run.thread_id)
            return fallback


def text_of(content: Content) -> str:
    """The text of a message, its text parts joined."""
    if isinstance(content, str):
        return content
    return " ".join(
        str(part["text"]) for part in content if part.get("type") == "text" and "text" in part
    )


def shorten(text: str) -> str:
    """One line of at most MAX_NAME_LENGTH characters, cut between words where there are any."""
    line = _BLANK.sub(" ", text).strip()
    if len(line) <= MAX_NAME_LENGTH:
        return line
    cut = line[: MAX_NAME_LENGTH - 1]
    whole_words, _, _ = cut.rpartition(" ")
    return (whole_words or cut).rstrip(" ,.;:") + "…"


def load_generator(path: str) -> GenerateName:
    """The callable that `thread_name_generator` names, made async.

    A function, or an object or class with a method `generate_name`; it gets the thread's first
    messages and returns a name. Raises ConfigError.
    """
    found = load(path, setting="thread_name_generator")
    if inspect.isclass(found):
        found = found()
    generate = getattr(found, "generate_name", found)
    if not callable(generate) or count_positional(generate) not in {1, -1}:
        raise ConfigError(
            f"thread_name_generator: expected a callable of one argument (the messages), {path!r} "
            f"is a {type(found).__name__}"
        )

    threads = DaemonThreads(GENERATOR_THREADS)

    async def generate_name(messages: list[JsonObject]) -> str:
        if is_async_callable(generate):
            name = await generate(messages)
        else:
            name = await threads.run(lambda: generate(messages))
        if not isinstance(name, str):
            raise TypeError(f"expected a string, found {type(name).__name__}")
        return name

    return generate_name
