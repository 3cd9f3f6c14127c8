"""One virtual environment for each peer, filled from the registry, and kept between runs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PYTHON = "3.12"
"""10xgraph needs it; so all of them get it."""


class NotInstalled(Exception):
    """The first line says why."""


@dataclass(frozen=True, slots=True)
class Environment:
    folder: Path
    versions: dict[str, str] = field(default_factory=dict)

    def script(self, name: str) -> str:
        return str(self.folder / "bin" / name)


def default_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "agentflow-peers"


def prepare_environment(
    folder: Path, requirements: Sequence[str], *, fresh: Sequence[str] = ()
) -> Environment:
    """Raises NotInstalled. Packages named in `fresh` are installed anew each time."""
    environment = Environment(folder)
    stamp = folder / "requirements.json"
    wanted = json.dumps([PYTHON, *requirements])
    if fresh or not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        if not stamp.exists():
            _run_uv("venv", "--clear", "--python", _find_python(), str(folder))
        again = [f"--reinstall-package={name}" for name in fresh]
        python = f"--python={environment.script('python')}"
        _run_uv("pip", "install", "--quiet", "--compile-bytecode", python, *again, *requirements)
        stamp.write_text(wanted, encoding="utf-8")
    listed = _run_uv("pip", "list", "--format=json", "--python", environment.script("python"))
    environment.versions.update((one["name"], one["version"]) for one in json.loads(listed))
    return environment


def _find_python() -> str:
    """A version that pyenv has installed but not activated answers only when it is named."""
    command = [f"python{PYTHON}", "-c", "import sys; print(sys._base_executable)"]
    variables = {**os.environ, "PYENV_VERSION": PYTHON}
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=variables
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return PYTHON  # uv may find one, or fetch it


def _run_uv(*arguments: str) -> str:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise NotInstalled("uv is not installed")
    done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip(" ×╰─▶│├") for line in done.stderr.splitlines()]
        raise NotInstalled(" ".join(line for line in lines if line)[:200])
    return done.stdout
