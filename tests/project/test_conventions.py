"""The page of conventions shows code that runs."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_every_block_of_the_page_is_python() -> None:
    assert {language for language, _ in BLOCKS} == {"python"}


@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=range(1, len(BLOCKS) + 1))
def test_the_code_on_the_page_runs(code: str) -> None:
    namespace: dict[str, object] = {"__name__": "conventions"}
    exec(compile(code, PAGE.name, "exec"), namespace)
    assert len(namespace) > 2, "a block defines what it talks about"
