"""Reading a file that is still being written, renamed away, or cut back."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from agentflow_server.audit.reading import FileReader
from agentflow_server.errors import ConfigError

Write = Callable[..., Path]


async def test_a_reader_knows_the_end_of_the_file_as_it_found_it(write: Write) -> None:
    path = write(["one", "two"])
    with ExitStack() as closing, path.open("a") as file:
        reader = FileReader(path, closing)
        file.write("three\n")
        file.flush()
        assert [line async for line in reader.newest_first()] == ["two", "one"]
        assert await reader.news() == ["three"]
        assert await reader.news() == []
        assert [line async for line in reader.oldest_first()] == [
            (f"{path}:1", "one"),
            (f"{path}:2", "two"),
            (f"{path}:3", "three"),
        ]


async def test_a_line_is_news_when_it_is_complete(write: Write) -> None:
    path = write([])
    with ExitStack() as closing, path.open("a") as file:
        reader = FileReader(path, closing)
        for piece, news in (("on", []), ("e\ntw", ["one"]), ("o\n\n", ["two", ""])):
            file.write(piece)
            file.flush()
            assert await reader.news() == news


async def test_the_rest_of_a_renamed_file_comes_before_the_new_one(write: Write) -> None:
    path = write(["one"])
    with ExitStack() as closing:
        reader = FileReader(path, closing)
        with path.open("a") as file:
            path.rename(path.with_suffix(".1"))
            file.write("two\n")
            file.flush()
            assert await reader.news() == ["two"]
            file.write("three\n")
        write(["four"])
        assert await reader.news() == ["three", "four"]
        assert await reader.news() == []


async def test_a_file_that_was_cut_back_is_read_from_its_beginning(write: Write) -> None:
    path = write(["one", "two"])
    with ExitStack() as closing:
        reader = FileReader(path, closing)
        os.truncate(path, 0)
        assert await reader.news() == []
        with path.open("a") as file:
            file.write("three\n")
        assert await reader.news() == ["three"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with ExitStack() as closing, pytest.raises(ConfigError, match=r"none\.log: cannot be read"):
        FileReader(tmp_path / "none.log", closing)
