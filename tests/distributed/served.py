"""The agent of these processes. Copied into their folder. Its messages are `WORD …`."""

import asyncio
import os

from agentflow_server import ask

SAYS = {
    "wait": ("begun ", "ended"),
    "announce": (
        {"role": "assistant", "content": "I begin"},
        {"role": "assistant", "content": "I end"},
    ),
}


async def stop_at_the_gate(content):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["GATE"]))
    try:
        writer.write(f"{os.getpid()} {content}\n".encode())
        await reader.read()
    finally:
        writer.close()


async def app(messages, config):
    content = messages[-1]["content"]
    word, *rest = content.split()
    match word:
        case "wait" | "announce":
            begins, ends = SAYS[word]
            yield begins
            await stop_at_the_gate(content)
            yield ends
        case "ask":
            told = await ask(config, {"question": rest})
            yield f"told {told}"
        case "count":
            for number in range(int(rest[0])):
                yield f"{number} "
                await asyncio.sleep(0)
        case "slowly":
            for number in range(int(rest[0])):
                yield f"{number} "
                await asyncio.sleep(0.02)
        case "sleep":
            await asyncio.sleep(float(rest[0]))
            yield f"echo {content}"
        case "who":
            yield str(os.getpid())
        case "history":
            yield " | ".join(message["content"] for message in messages[:-1])
        case _:
            yield f"echo {content}"
