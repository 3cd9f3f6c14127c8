"""What the tests of `agentflow init` share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_in() -> Callable[..., str]:
    """Runs Python in a folder, as a user would, without this process's settings."""

    def run(folder: Path, *arguments: str, package: Path = CHECKOUT) -> str:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        finished = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    return run
