"""Reads the project's own pages."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
_FILE = re.compile(r"`(?P<path>[\w/.-]+\.(?:py|json))`:\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block; `path` is the file that the line before it names."""

    page: str
    language: str
    text: str
    path: str | None


def read_blocks(page: Path) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        named = _FILE.search(match["before"])
        found.append(Block(page.name, match["language"], match["text"], named and named["path"]))
    return found


@pytest.fixture
def readme() -> list[Block]:
    return read_blocks(ROOT / "README.md")


@pytest.fixture
def pages() -> list[Block]:
    return [
        block
        for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
        for block in read_blocks(page)
    ]


@pytest.fixture
def root() -> Path:
    return ROOT


Blocks = Callable[[], list[Block]]
