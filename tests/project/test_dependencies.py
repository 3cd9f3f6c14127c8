"""Every dependency is declared, explained and pinned."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def declared(root: Path) -> dict[str, Requirement]:
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    lists: list[Iterable[str]] = [
        data["build-system"]["requires"],
        data["project"]["dependencies"],
        *data["project"]["optional-dependencies"].values(),
        *data["dependency-groups"].values(),
    ]
    requirements = [Requirement(text) for texts in lists for text in texts]
    own = canonicalize_name(data["project"]["name"])
    return {
        name: requirement
        for requirement in requirements
        if (name := canonicalize_name(requirement.name)) != own
    }


@pytest.fixture(scope="module")
def pinned(root: Path) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line):
            versions.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return versions


def test_every_dependency_is_explained_and_no_other(root: Path, declared: Any) -> None:
    text = (root / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([^`\[]+)(?:\[[^\]]*\])?` \|", text, re.M)
    assert sorted(map(canonicalize_name, explained)) == sorted(declared)


def test_every_explanation_has_a_reason_a_licence_and_a_maintainer(root: Path) -> None:
    text = (root / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if len(row) != 4 or not all(cell.strip() for cell in row)] == []


def test_the_lock_pins_every_dependency_to_a_version_that_is_allowed(
    declared: Any, pinned: Any
) -> None:
    wrong = [
        str(requirement)
        for name, requirement in declared.items()
        if not pinned.get(name)
        or not all(requirement.specifier.contains(version) for version in pinned[name])
    ]
    assert wrong == [], "run `make lock`"


def test_the_lock_has_pins_alone(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    strange = [
        line
        for line in lines
        if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.!+]*( ; .+)?|\s*#.*", line)
    ]
    assert strange == []
