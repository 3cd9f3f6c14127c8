"""What may be in the repository, and what must agree in it."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

import agentflow_server

TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "agentflow.json.example",
    "agentflow_server",
    "auth",
    "benchmarks",
    "constraints.txt",
    "deploy",
    "docs",
    "examples",
    "pyproject.toml",
    "tests",
}

# In pieces, so that this file does not contain what it looks for.
HOSTS = [
    ("py" + "pi", "org"),
    ("python" + "hosted", "org"),
    ("npm" + "js",),
    ("deb", "deb" + "ian"),
]
FOLDERS = ["wo" + "rk", "ro" + "ot", "opt/py" + "pi"]


def test_the_top_level_holds_only_what_belongs_there(files: Any) -> None:
    entries = {name.split("/")[0] for name in files}
    assert {entry for entry in entries if not entry.startswith(".")} - TOP_LEVEL == set()


def _texts(root: Path, files: list[str]) -> dict[str, str]:
    texts = {}
    for name in files:
        try:
            texts[name] = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return texts


def _occurrences(texts: dict[str, str], needle: str) -> list[str]:
    return [
        f"{name}:{number}"
        for name, text in texts.items()
        if needle in text
        for number, line in enumerate(text.splitlines(), 1)
        if needle in line
    ]


@pytest.mark.parametrize("labels", HOSTS)
def test_no_file_names_a_package_registry(root: Path, files: Any, labels: tuple[str, ...]) -> None:
    assert _occurrences(_texts(root, files), ".".join(labels)) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_names_a_folder_of_one_machine(root: Path, files: Any, folder: str) -> None:
    assert _occurrences(_texts(root, files), f"/{folder}/") == []


def test_the_changelog_starts_with_what_is_not_released_and_knows_this_version(root: Path) -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (root / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[:2] == ["Unreleased", agentflow_server.__version__]


def test_the_licence_is_the_one_that_is_declared(root: Path) -> None:
    text = (root / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_check_before_landing_can_be_executed(root: Path) -> None:
    assert os.access(root / ".ci" / "run", os.X_OK)


def test_every_target_of_the_makefile_is_explained_by_it(root: Path) -> None:
    text = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", text, re.M)
    assert [target for target in targets if f'"make {target} ' not in text] == ["help"]


def test_a_decision_is_short_and_has_its_three_parts(root: Path) -> None:
    decisions = sorted((root / "docs" / "adr").glob("*.md"))
    assert decisions
    for decision in decisions:
        text = decision.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 40, decision.name
        assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences"]
