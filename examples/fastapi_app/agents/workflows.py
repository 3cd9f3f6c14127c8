"""A student and a teacher learn together; no model is needed to see how it works."""

from collections.abc import AsyncIterator
from typing import Any

from agentflow_server import ask

QUESTION = "I can help you learn about mathematics. What would you like to explore?"


async def simple_learning(
    messages: list[dict[str, Any]], config: dict[str, Any]
) -> AsyncIterator[dict[str, str]]:
    subject = await ask(config, {"question": QUESTION})
    # What the application's dependency returned is in the config; no client can change it.
    student = config.get("full_name", config["user_id"])
    yield {"role": "assistant", "content": f"{student}: What is the idea of {subject}?"}
    yield {"role": "assistant", "content": f"Teacher: Let us find an example of {subject}."}
