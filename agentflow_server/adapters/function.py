"""Serves a plain function: `def agent(messages, config)`, in all the forms people write it."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pydantic_core import to_jsonable_python

from agentflow_server.adapters.asking import Asked, AskingConfig
from agentflow_server.adapters.shapes import (
    TOOL_FIELDS,
    as_json,
    checked_message,
    checked_text,
    to_openai,
    tool_call,
)
from agentflow_server.adapters.threads import AgentThreads
from agentflow_server.errors import ConfigError
from agentflow_server.importing import is_async_callable
from agentflow_server.interfaces import (
    Agent,
    AgentAsked,
    AgentEvent,
    CustomEvent,
    MessageCompleted,
    RunContext,
    TextDelta,
)
from agentflow_server.models import JsonObject, Message, NewMessage

MAX_THREADS = 64
"""Turns of one synchronous agent that run at once; the next ones wait."""

_LANGCHAIN_ROLES = {"ai": "assistant", "AIMessageChunk": "assistant", "human": "user"}


@dataclass(frozen=True, slots=True)
class _Returned:
    """What the function returned, as opposed to something it yielded."""

    value: Any


class FunctionAgent(Agent):
    """`messages` are dicts in OpenAI's shape; the config is a dict. Both are private copies.

    The function returns text, a message or a list of messages, or yields text as it is written;
    a yielded dict with a `role` is a whole message, any other one an event for the client.
    Synchronous functions run in threads. A function that asks runs again when it is answered.
    """

    kind: ClassVar[str] = "function"

    def __init__(self, function: Callable[..., Any], *, name: str) -> None:
        """Raises ConfigError when the function cannot be called as an agent."""
        self._function = function
        self._takes_config = _takes_config(function, name)
        self._creates_only = _creates_only(function)
        self._threads = AgentThreads(MAX_THREADS)

    async def stream(
        self, context: RunContext, messages: Sequence[Message]
    ) -> AsyncGenerator[AgentEvent, None]:
        config = AskingConfig(context.config, context.answers)
        arguments: list[Any] = [[to_openai(message) for message in messages]]
        if self._takes_config:
            arguments.append(config)
        reply = _Reply()
        call = partial(self._function, *arguments)
        try:
            async with aclosing(self._items(call, context.run_id)) as items:
                async for item in items:
                    for event in reply.take(item):
                        yield event
        except BaseException as exc:
            if not _is_question(exc):
                raise
        for event in reply.flush():
            yield event
        if config.questions.open is not None:
            yield AgentAsked([config.questions.open])

    async def settle(self, run_id: str) -> None:
        await self._threads.settle(run_id)

    async def _items(self, call: Callable[[], Any], run_id: str) -> AsyncGenerator[Any, None]:
        result = call() if self._creates_only else await self._threads.run(call, run_id)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, AsyncIterable):
            iterator = aiter(result)
            try:
                async for item in iterator:
                    yield item
            finally:
                if hasattr(iterator, "aclose"):
                    await iterator.aclose()
        elif isinstance(result, Iterator):
            async with aclosing(self._threads.iterate(result, run_id)) as items:
                async for item in items:
                    yield item
        else:
            yield _Returned(result)


def _is_question(error: BaseException) -> bool:
    """Also when it comes out of a task group."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(Asked)[1] is None
    return isinstance(error, Asked)


class _Reply:
    """Turns what a function gives into events; knows the text since the last whole message."""

    def __init__(self) -> None:
        self._deltas: list[str] = []

    def take(self, item: Any) -> Iterator[AgentEvent]:
        if getattr(item, "type", None) == "AIMessageChunk":
            item = _langchain_text(item.content)
        match item:
            case _Returned(list() | tuple() as values):
                for value in values:
                    yield from self._complete(_read_message(value))
            case _Returned(value):
                yield from self._complete(_read_message(value))
            case None | "":
                pass  # what the deltas of a model's stream often are
            case str():
                yield self._delta(item)
            case Mapping() if "role" not in item:
                yield CustomEvent(as_json(item))
            case _:
                yield from self._complete(_read_message(item))

    def flush(self) -> Iterator[AgentEvent]:
        if self._deltas:
            yield MessageCompleted(NewMessage("assistant", "".join(self._deltas)))
            self._deltas.clear()

    def _delta(self, text: str) -> TextDelta:
        self._deltas.append(checked_text(text))
        return TextDelta(self._deltas[-1])

    def _complete(self, message: NewMessage) -> Iterator[AgentEvent]:
        if message.role == "assistant" and message.content == "".join(self._deltas):
            self._deltas.clear()
        yield from self.flush()
        yield MessageCompleted(message)


def _read_message(value: Any) -> NewMessage:
    """Raises TypeError: what an agent may say is decided here, and not when it is read back."""
    match value:
        case str():
            return checked_message("assistant", value, {})
        case Mapping():
            return _read_mapping(value)
        case None:
            raise TypeError("the agent returned nothing: expected text, a message, or a list")
        case _ if hasattr(value, "content"):
            return _read_mapping(_as_mapping(value))
        case _:
            raise TypeError(
                f"the agent returned {type(value).__name__}: expected text, a message, or a list"
            )


def _read_mapping(value: Mapping[str, Any]) -> NewMessage:
    if "content" not in value:
        raise TypeError('the agent returned a message without "content"')
    tools = {field: value[field] for field in TOOL_FIELDS if value.get(field)}
    content = value["content"]
    if content is None and "tool_calls" in tools:
        content = ""
    metadata = {**(value.get("metadata") or {}), **tools}
    return checked_message(value.get("role", "assistant"), content, metadata)


def _as_mapping(message: Any) -> JsonObject:
    """A message object of a framework: LangChain's have a `type`, others a `role`."""
    kind = getattr(message, "type", "assistant")
    role = getattr(message, "role", _LANGCHAIN_ROLES.get(kind, kind))
    shaped = {"role": role, "content": to_jsonable_python(message.content)}
    for field in TOOL_FIELDS:
        shaped[field] = to_jsonable_python(getattr(message, field, None))
    shaped["tool_calls"] = [
        tool_call(call["name"], call["id"], call["args"]) if "args" in call else call
        for call in shaped["tool_calls"] or []
    ]
    return shaped


def _langchain_text(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def _takes_config(function: Callable[..., Any], name: str) -> bool:
    """Whether to call it with (messages, config) or with (messages)."""
    expected = f"agent {name!r}: expected a function of (messages, config) or (messages), found "
    called = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function)
    except ValueError as exc:
        raise ConfigError(f"{expected}{called}, which does not tell its arguments") from exc
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    required = [p for p in positional if p.default is p.empty]
    named_only = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(required) > 2 or named_only or not (positional or any_number):
        raise ConfigError(f"{expected}{called}{signature}")
    second = positional[1:2]
    return any_number or any(p.default is p.empty or p.name == "config" for p in second)


def _creates_only(function: Callable[..., Any]) -> bool:
    """True when calling it runs none of its code: it makes a coroutine or a generator."""
    forms = (function, type(function).__call__)
    return is_async_callable(function) or any(
        inspect.isasyncgenfunction(form) or inspect.isgeneratorfunction(form) for form in forms
    )
