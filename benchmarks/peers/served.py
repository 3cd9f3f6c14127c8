"""A contender that runs: with what it needs around it, its tokens, and a crash at will."""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jwt

from benchmarks.load import Outcome, build_request, run_clients
from benchmarks.peers.backing import Backing, find_free_port, open_backing
from benchmarks.peers.contenders import AGENTS, Auth, Contender, Place, find_failure
from benchmarks.peers.environments import Environment
from benchmarks.peers.processes import Spent, Tree, kill, pinned_to, running
from benchmarks.server import Cores

START_TIMEOUT = 90.0
LONGEST_LOAD = 300.0
NOT_INHERITED = (
    *("AGENTFLOW_", "JWT_", "PYTHON", "COVERAGE", "VIRTUAL_ENV"),
    *("LANGGRAPH_", "LANGSMITH_", "LANGCHAIN_", "AEGRA_", "TENXGRAPH_"),
)


class Served:
    """A started server. It may be killed and started again in its folder."""

    def __init__(
        self, contender: Contender, place: Place, backing: Backing, cores: Cores, stack: ExitStack
    ) -> None:
        self.contender = contender
        self.port = place.port
        self.seconds_to_ping = 0.0
        self._place = place
        self._backing = backing
        self._cores = cores
        self._stack = stack
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError."""
        launch = self.contender.prepare(self._place)
        folder, log = self._place.folder, self._place.folder / "log"
        variables = {**_environment(self._place), **launch.variables}
        if launch.first:
            subprocess.run(launch.first, cwd=folder, env=variables, check=True, capture_output=True)
        begun = time.perf_counter()
        self._process = self._stack.enter_context(
            running(launch.command, self._cores.server, cwd=folder, variables=variables, log=log)
        )
        try:
            self._wait_for_ping(begun)
        except RuntimeError as exc:
            written = log.read_text(encoding="utf-8", errors="replace").rstrip()
            last = written.rpartition("\n")[2]
            raise RuntimeError(f"{exc}: {last[:300]}\n{written[-1500:]}") from exc

    def crash(self) -> None:
        assert self._process is not None
        kill(self._process)

    def token(self, client: int) -> str | None:
        """A caller of its own for each client."""
        if self._place.auth != "jwt":
            return None
        claims = {"user_id": f"user-{client}", "sub": f"user-{client}", "exp": time.time() + 3600}
        return jwt.encode(claims, self._place.secret, algorithm="HS256")

    def new_threads(self, client: int, count: int, length: int) -> list[str]:
        """Each with so many messages already."""
        token = self.token(client)
        creations = [self.contender.creation(token)] * count
        created = run_clients(self.port, [creations], LONGEST_LOAD)
        thread_ids = [self.contender.thread_id(body) for body in created.bodies]
        more = length - self.contender.length_at_creation
        if more > 0:
            self.run([[self.turn(one, f"fill {more}", client) for one in thread_ids]])
        return thread_ids

    def turn(self, thread_id: str, text: str, client: int, *, stream: bool = False) -> bytes:
        return self.contender.turn(thread_id, text, self.token(client), stream=stream)

    def run(self, plans: list[list[bytes]]) -> Outcome:
        """Raises RuntimeError if an answer is not the agent's."""
        outcome = run_clients(self.port, plans, LONGEST_LOAD)
        failure = find_failure(outcome.bodies)
        if failure is not None:
            raise RuntimeError(f"{self.contender.name} answers with {failure}")
        return outcome

    def history(self, thread_id: str, client: int) -> bytes:
        request = self.contender.history(thread_id, self.token(client))
        return run_clients(self.port, [[request]], LONGEST_LOAD).bodies[0]

    def spent(self) -> Spent:
        database = sum(tree.cpu_seconds() for tree in self._backing.trees)
        return Spent(self._tree.cpu_seconds(), database)

    def memory(self) -> float:
        return self._tree.memory()

    @property
    def _tree(self) -> Tree:
        assert self._process is not None
        return Tree(self._process.pid)

    def _wait_for_ping(self, begun: float) -> None:
        ping = build_request("GET", self.contender.ping)
        while time.perf_counter() - begun < START_TIMEOUT:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with code {self._process.returncode}")
            try:
                run_clients(self.port, [[ping]], START_TIMEOUT)
            except (ConnectionRefusedError, ConnectionResetError):
                time.sleep(0.002)
            else:
                self.seconds_to_ping = time.perf_counter() - begun
                return
        raise RuntimeError(f"it did not answer within {START_TIMEOUT:.0f} s")


@contextmanager
def served(
    contender: Contender, environment: Environment, cores: Cores, *, auth: Auth = "jwt"
) -> Iterator[Served]:
    """Not started yet. At the end nothing of it is left."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentflow-peer-")))
        with pinned_to(cores.server):
            backing = stack.enter_context(open_backing(contender.storage, folder))
        place = Place(
            environment=environment,
            folder=folder,
            port=find_free_port(),
            auth=auth,
            secret=secrets.token_urlsafe(48),
            postgres=backing.postgres,
            redis=backing.redis,
        )
        yield Served(contender, place, backing, cores, stack)


def _environment(place: Place) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
    paths = f"{place.environment.folder / 'bin'}:{inherited['PATH']}"
    return {
        **inherited,
        "PATH": paths,
        "PYTHONPATH": str(AGENTS),
        "JWT_SECRET_KEY": place.secret,
    }
