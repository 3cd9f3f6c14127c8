"""A project whose processes share a database of PostgreSQL, each started as a user would."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import jwt

import agentflow_server

HERE = Path(__file__).parent
SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
DEADLINE = 60.0


def make_environment(**own: str) -> dict[str, str]:
    """This process's, without what would configure the server."""
    prefixes = ("AGENTFLOW_", "JWT_", "PG")
    outside = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    root = str(Path(agentflow_server.__file__).parents[1])
    return {**outside, "PYTHONPATH": root, "JWT_SECRET_KEY": SECRET, **own}


def make_token(user: str) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 3600}, SECRET, algorithm="HS256")


class Process:
    """`agentflow …`; its output is read line by line."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._arrived = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agentflow_server", *arguments],
            cwd=folder,
            env=make_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as stream:
            for line in stream:
                with self._arrived:
                    self._lines.append(line.rstrip("\n"))
                    self._arrived.notify_all()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def wait_for(self, text: str) -> str:
        """The first line of the output that contains `text`."""

        def find() -> str | None:
            return next((line for line in self._lines if text in line), None)

        with self._arrived:
            self._arrived.wait_for(lambda: find() or self._ended, DEADLINE)
            line = find()
        assert line is not None, f"no {text!r} in:\n{self.output}"
        return line

    @property
    def output(self) -> str:
        return "\n".join(self._lines)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As the kernel does it: no warning, no last words."""
        self._process.kill()
        self.wait()

    def stop(self) -> int:
        """As an administrator does it. Returns the exit code."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        code = self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code


class Replica(Process):
    """`agentflow serve`, on a free port unless the options name one."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        super().__init__(folder, "serve", "--port", "0", *options, **environment)

    def answer(self) -> "Replica":
        """Returns when it is ready."""
        self.url = self.wait_for(" URL ").split()[-1]
        return self

    def client(self, user: str = "alice", **headers: str) -> httpx2.AsyncClient:
        bearer = {"Authorization": f"Bearer {make_token(user)}"}
        return httpx2.AsyncClient(
            base_url=self.url, timeout=DEADLINE, headers={**bearer, **headers}
        )


class Site:
    """One folder, any number of processes."""

    def __init__(self, folder: Path, database: str, **settings: Any) -> None:
        self.folder = folder
        self._environment = {"DATABASE_URL": database}
        self._processes: list[Process] = []
        shutil.copy(HERE / "served.py", folder)
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """For those that are started from now on."""
        content = {"agent": "served:app", "auth": ["jwt", "api_key"], "database": "${DATABASE_URL}"}
        text = json.dumps({**content, **settings})
        (self.folder / "agentflow.json").write_text(text, encoding="utf-8")

    def set(self, **environment: str) -> None:
        self._environment.update(environment)

    def begin_to_serve(self, *options: str) -> Replica:
        """Returns at once; `answer()` waits."""
        replica = Replica(self.folder, *options, **self._environment)
        self._processes.append(replica)
        return replica

    def serve(self, *options: str) -> Replica:
        return self.begin_to_serve(*options).answer()

    def begin_to_work(self) -> Process:
        worker = Process(self.folder, "worker", **self._environment)
        self._processes.append(worker)
        return worker

    def work(self) -> Process:
        worker = self.begin_to_work()
        worker.wait_for("executing runs")
        return worker

    def command(self, *arguments: str) -> str:
        """Its output, when it has ended well."""
        process = Process(self.folder, *arguments, **self._environment)
        self._processes.append(process)
        assert process.wait() == 0, process.output
        return process.output

    def close(self) -> None:
        for process in self._processes:
            if process.is_alive:
                process.kill()
            process.wait()

    def check_logs(self) -> None:
        """Nothing unexpected happened in any of them."""
        for process in self._processes:
            assert "Traceback" not in process.output, process.output
