"""What a message to one of the agents in `served.py` makes them say."""

from collections.abc import Sequence
from typing import Any

WORDS = ("say", "say", "say", "tool", "tool", "ask", "wait")


def said(agent: str, content: str, answers: Sequence[Any]) -> tuple[list[tuple[str, str]], int]:
    """(role, text) of all that is said, up to the first question without an answer, and how much
    of it was said before the last question that was answered."""
    name, *words = content.split()
    given = list(answers)
    lines: list[tuple[str, str]] = []
    before = 0
    for place, word in enumerate(words):
        match word:
            case "say":
                lines.append(("assistant", f"{name}/{place} said"))
            case "tool":
                if agent == "graph":
                    lines.append(("assistant", f"{name}/{place} looks"))
                lines.append(("tool", f"{name}/{place} found"))
            case "ask" if not given:
                break
            case "ask":
                before = len(lines)
                lines.append(("assistant", f"{name}/{place} was told {given.pop(0)}"))
    return lines, before


def questions(content: str) -> int:
    return content.split().count("ask")
