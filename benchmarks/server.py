"""The server under test: `agentflow serve` in a process of its own, on a core of its own."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt

from benchmarks.load import HOST, build_request, run_clients

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the two sides run; on a machine with one core, both on that."""

    server: int
    load: int


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB of 10^6 bytes; PSS counts what several processes share only in part."""

    rss: float
    pss: float


def take_cores() -> Cores:
    """Pins this process, the load generator."""
    available = sorted(os.sched_getaffinity(0))
    cores = Cores(server=available[0], load=available[-1])
    os.sched_setaffinity(0, {cores.load})
    return cores


class Server:
    """`with Server("module:agent", cores=…) as server:` it answers, and is gone afterwards."""

    def __init__(
        self,
        agent: str,
        *,
        cores: Cores | None,
        use_jwt: bool = False,
        settings: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` of agentflow.json and environment `variables` beside the usual ones. Without
        `cores` the kernel says where it runs."""
        self._agent = agent
        self._cores = cores
        self._settings = settings or {}
        self._variables = variables or {}
        self._secret = secrets.token_urlsafe(48) if use_jwt else None
        self._closing = ExitStack()
        self.database = Path()
        self.port = 0
        self.pid = 0
        self.seconds_to_ping = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentflow-")))
            log = stack.enter_context((folder / "log").open("wb"))
            command = self._command(folder)
            begun = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment(), stdout=log, stderr=log
            )
            stack.callback(_stop, process)
            if self._cores is not None:
                os.sched_setaffinity(process.pid, {self._cores.server})
            self.pid = process.pid
            try:
                self._wait_for_ping(process)
            except RuntimeError as exc:
                raise RuntimeError(f"{exc}\n{(folder / 'log').read_text()[-2000:]}") from exc
            self.seconds_to_ping = time.perf_counter() - begun
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def token_for(self, client: int) -> str | None:
        """A caller of its own for each client."""
        if self._secret is None:
            return None
        claims = {"user_id": f"user-{client}", "roles": ["reader"], "exp": time.time() + 3600}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def cpu_seconds(self) -> float:
        """User and system time of all its threads, exact to the nanosecond."""
        # The clock id that clock_getcpuclockid(3) makes of a process id.
        return time.clock_gettime((~self.pid << 3) | 2)

    def read_memory(self) -> Memory:
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        fields = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
        return Memory(*(int(fields[name].split()[0]) * 1024 / 1e6 for name in ("Rss", "Pss")))

    def _command(self, folder: Path) -> list[str]:
        auth = "none" if self._secret is None else "jwt"
        config: dict[str, Any] = {"agent": self._agent, "auth": auth}
        self.database = folder / "agentflow.db"
        config |= {"database": f"sqlite:///{self.database}", **self._settings}
        path = folder / "agentflow.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        self.port = _find_free_port()
        serve = [sys.executable, "-m", "agentflow_server", "serve"]
        return [*serve, "--config", str(path), "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        ours = ("AGENTFLOW_", "JWT_", "PYTHON", "COVERAGE")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        if self._secret is not None:
            environment["JWT_SECRET_KEY"] = self._secret
        return {**environment, **self._variables}

    def _wait_for_ping(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.perf_counter() + START_TIMEOUT
        while time.perf_counter() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with code {process.returncode}")
            try:
                run_clients(self.port, [[build_request("GET", "/ping")]], START_TIMEOUT)
            except ConnectionRefusedError:
                time.sleep(0.002)
            else:
                return
        raise RuntimeError(f"the server did not answer within {START_TIMEOUT:.0f} s")


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
