"""agentflow.schema.json, for editors: `python -m agentflow_server.config.schema` writes it."""

import json
from pathlib import Path

from agentflow_server.config.models import ConfigFile

SCHEMA_FILE = Path(__file__).with_name("agentflow.schema.json")


def schema_text() -> str:
    """The JSON Schema of agentflow.json, as the file holds it."""
    schema = ConfigFile.model_json_schema(by_alias=True)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**head, **schema, "title": "agentflow.json"}, indent=2) + "\n"


if __name__ == "__main__":  # pragma: no cover - a test compares the file with schema_text()
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
