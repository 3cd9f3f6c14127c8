"""examples/fastapi_app, started as its README says, answers the README's own commands as promised."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

import agentflow_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app"
PRINTED_URL = "http://127.0.0.1:8008"
END = "=== end of a block ==="
BLOCK = re.compile(r"```bash\n(.*?)```\n+(?:```text\n(.*?)```)?", re.DOTALL)
DEADLINE = 60


class Started:
    """`uvicorn main_…:app` in a process of its own."""

    def __init__(self, folder: Path, variant: str) -> None:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTFLOW_", "JWT_"))}
        self.folder = folder
        self.environment = {
            **outside,
            "PYTHONPATH": str(Path(agentflow_server.__file__).parents[1]),
            "APP_SECRET_KEY": "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", f"{variant}:app", "--port", "0"],
            cwd=folder, env=self.environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.output: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(DEADLINE), self.output
        running = re.search(r"running on (http://[\d.:]+)", "".join(self.output))
        assert running, self.output
        self.url = running[1]

    def _read(self) -> None:
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                self.output.append(line)
                if "running on" in line:
                    self._ready.set()
        self._ready.set()

    def run(self, *command: str, given: str = "") -> str:
        done = subprocess.run(
            command, cwd=self.folder, env={**self.environment, "APP_URL": self.url}, input=given,
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)


@pytest.fixture(scope="module", params=["main_simple", "main_jwt"])
def started(request, tmp_path_factory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp(request.param) / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".agentflow"))
    server = Started(folder, request.param)
    yield server
    server.stop()
    assert "Traceback" not in "".join(server.output)


@pytest.fixture
def type_in(started) -> Callable[[str], str]:
    return lambda script: started.run(
        "bash", "-euo", "pipefail", "-c", script.replace(PRINTED_URL, started.url)
    )


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_of_the_readme_answer_as_it_says(type_in):
    blocks = BLOCK.findall((EXAMPLE / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == 4
    script = "".join(f"{commands}\necho; echo '{END}'\n" for commands, _ in blocks)
    answers = type_in(script).split(END)[:-1]
    for (commands, expected), answer in zip_longest(blocks, answers):
        pattern = re.escape(expected.strip()).replace("…", ".*")
        assert re.fullmatch(pattern, answer.strip(), re.DOTALL), f"{commands}\n{answer}"


def test_the_client_of_the_example_talks_to_both_variants(started):
    said = started.run(sys.executable, "simple_client.py", given="fractions\n")
    assert said.startswith("I can help you learn about mathematics.")
    student = {"main_simple": "alice", "main_jwt": "Alice"}[started.folder.parent.name[:-1]]
    assert f"{student}: What is the idea of fractions?" in said
    assert said.endswith("Teacher: Let us find an example of fractions.\n")
