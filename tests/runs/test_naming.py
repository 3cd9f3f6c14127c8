"""Readable names for threads."""

import pytest

from agentflow_server.errors import ConfigError
from agentflow_server.runs.naming import MAX_NAME_LENGTH, load_generator, shorten, text_of


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hello", "Hello"),
        ("  two\n\nlines\t here ", "two lines here"),
        ("", ""),
        ("\x00\x1b[31m\u202e", "[31m"),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 20, "word " * 10 + "word…"),
    ],
)
def test_a_name_is_one_short_line(text, name):
    assert shorten(text) == name
    assert len(shorten(text)) <= MAX_NAME_LENGTH


def test_the_text_of_parts_is_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert text_of(parts) == "a b"


@pytest.mark.parametrize("what", ["number", "no_argument", "Wrong"])
def test_a_generator_that_cannot_be_called_stops_the_server(tmp_path, monkeypatch, what):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_names.py").write_text(
        "number = 1\ndef no_argument(): return ''\nclass Wrong:\n    generate_name = 3\n"
    )
    with pytest.raises(ConfigError, match="thread_name_generator: expected a callable of one"):
        load_generator(f"my_names:{what}")
