"""What users import."""

import subprocess
import sys

import pytest

import agentflow_server


def test_the_public_names_are_sorted_and_unique() -> None:
    assert list(agentflow_server.__all__) == sorted(set(agentflow_server.__all__))


@pytest.mark.parametrize("name", getattr(agentflow_server, "__all__", []))
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(agentflow_server, name) is not None


def test_what_every_backend_and_every_embedding_needs_is_public() -> None:
    assert {"BaseAuth", "Principal", "create_app"} <= set(agentflow_server.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = agentflow_server.no_such_name


def test_importing_the_package_imports_no_framework() -> None:
    code = "import sys, agentflow_server; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert {"fastapi", "langgraph", "uvicorn"}.isdisjoint(result.stdout.split())
