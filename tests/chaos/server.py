"""The server that is killed: started on the same files again and again."""

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import agentflow_server

HERE = Path(__file__).parent
SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
PATIENCE = 60.0


def make_project(folder: Path) -> None:
    shutil.copy(HERE / "served.py", folder)
    (folder / "locks").mkdir()


def configure(folder: Path, database: str | None = None, **runs: Any) -> None:
    settings = {
        "agents": {name: f"served:{name}" for name in ("talks", "blocks", "graph")},
        "auth": "jwt",
        "runs": {"shutdown_grace": 0.3, **runs},
        **({} if database is None else {"database": database}),
    }
    (folder / "agentflow.json").write_text(json.dumps(settings), encoding="utf-8")


class Launcher:
    """Starts one server after the other, or one worker; what they log is in `server.log`."""

    def __init__(self, folder: Path, *command: str) -> None:
        self._folder = folder
        self._command = command or ("serve", "--port", "0")
        self.pid: int | None = None

    async def __aenter__(self) -> "Launcher":
        prefixes = ("AGENTFLOW_", "JWT_", "COVERAGE_", "COV_")
        outside = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
        root = str(Path(agentflow_server.__file__).parents[1])
        self._log = (self._folder / "server.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "launcher.py"),
            *self._command,
            cwd=self._folder,
            env={**outside, "PYTHONPATH": root, "JWT_SECRET_KEY": SECRET},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
        )
        await self._wait_for("ready")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self.pid is not None:
            await self.kill()
        self._process.stdin.close()
        await self._process.wait()
        self._log.close()

    async def launch(self, how: str = "fork") -> None:
        """Returns when there is a process; it may be killed at once."""
        self._process.stdin.write(f"{how}\n".encode())
        self.pid = int((await self._wait_for("pid ")).split()[-1])

    async def answer(self) -> str:
        """The URL, when the server answers."""
        return (await self._wait_for(" URL ")).split()[-1]

    def send(self, number: int) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> int:
        """Returns the exit code, when the process has gone."""
        self.send(signal.SIGKILL)
        return await self.wait()

    async def wait(self) -> int:
        code = int((await self._wait_for("ended ")).split()[-1])
        self.pid = None
        return code

    async def _wait_for(self, text: str) -> str:
        async with asyncio.timeout(PATIENCE):
            while line := (await self._process.stdout.readline()).decode():
                if text in line:
                    return line
                if line.startswith("ended"):
                    self.pid = None
                    break
        log = (self._folder / "server.log").read_text(errors="replace")
        raise AssertionError(f"no {text!r} from the launcher; the log ends with\n{log[-3000:]}")
