"""A folder with an agentflow.json, and an environment that is the test's own."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.config import Config, load_config
from agentflow_server.errors import ConfigError

STRONG_SECRET = "kJ8vQ2mX9rT4wZ7yB1nC6dF3gH5sL0pA-eUiOqRtYx"


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a test or the loader sets is gone afterwards, and nothing of outside is seen."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("AGENTFLOW_", "JWT_")):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def secret() -> str:
    return STRONG_SECRET


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write agentflow.json: an object, to which an agent is added, or a text as it is."""

    def write(content: dict[str, Any] | str) -> Path:
        file = tmp_path / "agentflow.json"
        if isinstance(content, dict):
            content = json.dumps({"agent": "graph.react:app", **content})
        file.write_text(content, encoding="utf-8")
        return file

    return write


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[..., Config]:
    def load(content: dict[str, Any] | str, **overrides: Any) -> Config:
        return load_config(write(content), overrides=overrides)

    return load


@pytest.fixture
def problems(load: Callable[..., Config]) -> Callable[..., Sequence[str]]:
    """The lines that loading this content fails with."""

    def problems(content: dict[str, Any] | str, **overrides: Any) -> Sequence[str]:
        with pytest.raises(ConfigError) as caught:
            load(content, **overrides)
        return caught.value.problems

    return problems
