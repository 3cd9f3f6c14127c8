"""What `agentflow chat` does, at a terminal and in a pipe."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from rich.console import Console

from agentflow_server.client import AgentflowClientError, AsyncAgentflowClient, Forbidden
from agentflow_server.client.clients import Auth
from agentflow_server.console.chat import Chat
from agentflow_server.console.conversation import Conversation
from agentflow_server.console.display import Display, MarkdownDisplay, PlainDisplay
from agentflow_server.console.interrupting import run_interruptible
from agentflow_server.console.prompt import Prompt
from agentflow_server.console.questions import describe
from agentflow_server.console.sessions import find_folder


class NotSaid(AgentflowClientError):
    """There is nothing that could be sent, or nobody who could answer."""

    code = "not_said"


def talk(url: str, auth: Auth, *, thread_id: str | None, agent: str | None) -> None:
    """At a terminal until somebody leaves; from elsewhere all of stdin is one message.

    Raises AgentflowClientError, KeyboardInterrupt.
    """
    display = _choose_display()
    with _connected(url, auth) as (runner, client):
        conversation = Conversation(client, display, agent=agent)
        if not sys.stdin.isatty():
            conversation.thread_id = thread_id
            run_interruptible(runner, _say_once(conversation, _read_message()))
            return
        begun = _begin(client, conversation, display, url=url, agent=agent, thread_id=thread_id)
        run_interruptible(runner, begun)
        prompt = Prompt(find_folder() / "history")
        Chat(runner, client, conversation, display=display, prompt=prompt, errors=sys.stderr).talk()
        _say_goodbye(conversation, display, url)


def _choose_display() -> Display:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a letter is no reason to stop.
            stream.reconfigure(errors="replace")
    if isinstance(sys.stdin, TextIOWrapper):
        # What is typed and no text in UTF-8 is found out when it is to be sent.
        sys.stdin.reconfigure(errors="surrogateescape")
    if sys.stdout.isatty():
        return MarkdownDisplay(Console())
    return PlainDisplay(sys.stdout, sys.stderr if sys.stdin.isatty() else None)


@contextmanager
def _connected(url: str, auth: Auth) -> Iterator[tuple[asyncio.Runner, AsyncAgentflowClient]]:
    with asyncio.Runner() as runner:
        client = AsyncAgentflowClient(url, auth)
        is_interrupted = False
        try:
            yield runner, client
        except KeyboardInterrupt:
            is_interrupted = True  # whatever was going on is not to go on for the sake of an end
            raise
        finally:
            if not is_interrupted:
                runner.run(client.close())


async def _begin(
    client: AsyncAgentflowClient,
    conversation: Conversation,
    display: Display,
    *,
    url: str,
    agent: str | None,
    thread_id: str | None,
) -> None:
    """Raises AgentflowClientError, before somebody has typed a long message in vain."""
    try:
        agents = await client.list_agents()
    except Forbidden:
        agents = []  # to talk with one wants less than to list them
    names = {found.name for found in agents}
    if agents and agent is not None and agent not in names:
        raise NotSaid(f"there is no agent {agent!r}; there are {', '.join(sorted(names))}")
    default = next((found.name for found in agents if found.default), "the agent")
    display.note(f"{agent or default} at {url} – /help shows the commands, Ctrl-D leaves")
    if thread_id is not None:
        await conversation.enter(thread_id)


def _say_goodbye(conversation: Conversation, display: Display, url: str) -> None:
    if conversation.thread_id is not None:
        display.tell(f"To go on: agentflow chat --url {url} --thread {conversation.thread_id}")


def _read_message() -> str:
    """Raises NotSaid."""
    try:
        return sys.stdin.buffer.read().decode().strip()
    except UnicodeDecodeError:
        raise NotSaid("stdin is no text in UTF-8") from None


async def _say_once(conversation: Conversation, text: str) -> None:
    """Raises AgentflowClientError, KeyboardInterrupt."""
    if text:
        await conversation.say(text)
    if conversation.was_stopped:
        raise KeyboardInterrupt
    if conversation.questions:
        asked = " ".join(describe(conversation.questions[0]).split())
        raise NotSaid(
            f"the agent asks: {asked[:200]} – answer with agentflow chat --thread "
            f"{conversation.thread_id}, at a terminal"
        )
