"""The echo as a function."""

from typing import Any

from answers import answers_to


def app(messages: list[dict[str, Any]]) -> list[str]:
    return answers_to(messages[-1]["content"])
