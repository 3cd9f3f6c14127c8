"""The model: an OpenAI-compatible one if there is a key, else a few rules that play its part."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel, generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

# What to look for in a message, the tool that helps, and the name of its argument.
RULES = [
    (re.compile(r"\b[A-Z]-\d+\b"), "find_order", "order_id"),
    (re.compile(r"[\d(][\d\s.()]{0,40}[-+*/][\d\s.()+*/-]{0,80}[\d)]"), "calculate", "expression"),
]
HELP = "Ask me about an order, such as A-17, or give me something to calculate."


def choose_model(tools: Sequence[BaseTool]) -> Runnable[Any, BaseMessage]:
    """`OPENAI_BASE_URL` names another server than OpenAI's, `OPENAI_MODEL` another model."""
    if not os.environ.get("OPENAI_API_KEY"):
        return RuleModel()
    # Imported here because the rules need no client: pip install langchain-openai
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    return ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini")).bind_tools(tools)


class RuleModel(BaseChatModel):
    """Decides by RULES, and writes word by word as a language model does."""

    @property
    def _llm_type(self) -> str:
        return "rules"

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _decide(messages[-1]):
            generation = ChatGenerationChunk(message=chunk)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=generation)
            yield generation

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager))


def _decide(message: BaseMessage) -> Iterator[AIMessageChunk]:
    if isinstance(message, ToolMessage):
        yield from _say(message.text)
        return
    for pattern, name, argument in RULES:
        if found := pattern.search(message.text):
            # The arguments of a tool call are JSON; what the patterns find needs no escaping.
            arguments = f'{{"{argument}": "{found[0].strip()}"}}'
            call = tool_call_chunk(name=name, args=arguments, id=f"call_{message.id}", index=0)
            yield AIMessageChunk(content="", tool_call_chunks=[call])
            return
    yield from _say(HELP)


def _say(text: str) -> Iterator[AIMessageChunk]:
    for word in re.findall(r"\S+\s*", text):
        yield AIMessageChunk(content=word)
