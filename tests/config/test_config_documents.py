"""The schema for editors and the example file say what the code does."""

import json
from pathlib import Path

import pytest

from agentflow_server.config import load_config
from agentflow_server.config.models import ConfigFile
from agentflow_server.config.schema import SCHEMA_FILE, schema_text

EXAMPLE = Path(__file__).parents[2] / "agentflow.json.example"


def test_the_schema_file_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "run: python -m agentflow_server.config.schema"
    )


def test_the_example_has_every_key_with_its_default() -> None:
    example = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    defaults = ConfigFile().model_dump(mode="json", by_alias=True)
    assert example | {"$schema": None, "agent": None} == defaults
    assert list(example)[:2] == ["$schema", "agent"]


def test_the_example_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(EXAMPLE)
    assert config.auth_written
    assert len(config.agents) == 1


def test_the_example_names_the_schema_file() -> None:
    example = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert (EXAMPLE.parent / example["$schema"]).resolve() == SCHEMA_FILE.resolve()
