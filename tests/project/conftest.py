"""What the tests of the project's own rules look at: its files, read and parsed once."""

import ast
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Source:
    """A Python file; `name` is its path inside the repository, with slashes."""

    name: str
    text: str
    tree: ast.Module

    def place(self, node: ast.stmt | ast.expr) -> str:
        """`file:line`, as an editor opens it."""
        return f"{self.name}:{node.lineno}"


def _read(*folders: str) -> list[Source]:
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found.append(
                Source(path.relative_to(ROOT).as_posix(), text, ast.parse(text, str(path)))
            )
    return found


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def package() -> Sequence[Source]:
    """What is installed."""
    return _read("agentflow_server")


@pytest.fixture(scope="session")
def product() -> Sequence[Source]:
    """What is installed or copied into a user's project."""
    return _read("agentflow_server", "auth")


@pytest.fixture(scope="session")
def tests() -> Sequence[Source]:
    """The tests, and those that are shipped to users."""
    return _read("tests", "agentflow_server/testing")


@pytest.fixture(scope="session")
def files() -> Sequence[str]:
    """Every file that is, or would be, committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only a git checkout knows which files belong to the project")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    names = sorted(set(listing.stdout.split("\0")) - {""})
    return [name for name in names if (ROOT / name).is_file()]
