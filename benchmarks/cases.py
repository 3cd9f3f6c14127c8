"""What is measured, and how often."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

from benchmarks.agents import LENGTHS, TURNS_PER_THREAD
from benchmarks.identity import UNLIMITED, Amount, Identity, measure_identity
from benchmarks.load import Outcome, build_request, run_clients, time_first_delta
from benchmarks.logins import Logins, measure_logins
from benchmarks.server import ROOT, Cores, Memory, Server

LONGEST_RUN = 20.0
EXAMPLE = "examples.echo.agent:app"
ASYNC_ECHO = "benchmarks.agents:async_echo"
LONG_ECHO = "benchmarks.agents:sync_echo"
STAMPED = "benchmarks.agents:stamped"
GRAPH = "benchmarks.graphs:app"
SERVED = (
    ("function (def)", EXAMPLE, "none"),
    ("function (def)", EXAMPLE, "jwt"),
    ("function (async def)", ASYNC_ECHO, "jwt"),
    ("LangGraph", GRAPH, "none"),
    ("LangGraph", GRAPH, "jwt"),
)

GUARDS: Mapping[str, Mapping[str, Any]] = {
    "neither": {},
    "audit log, file": {"observability": {"audit": {"sink": "file", "path": "audit.jsonl"}}},
    "audit log, database": {"observability": {"audit": {"sink": "database"}}},
    "rate limits": {
        "rate_limit": {
            "per_principal": UNLIMITED,
            "per_address": UNLIMITED,
            "routes": {"POST /threads/{thread_id}/messages": UNLIMITED},
        }
    },
}
"""Settings whose price per turn is measured, each against none of them."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure. `turns` and `graph_turns`: clients → turns of each client in a round."""

    rounds: int
    turns: Mapping[int, int]
    graph_turns: Mapping[int, int]
    threads: int
    starts: int
    streams: int
    guarded: int
    logins: int
    identity: Amount


FULL = Effort(
    rounds=4,
    turns={1: 200, 16: 70, 64: 20},
    graph_turns={1: 60, 16: 20, 64: 10},
    threads=2,
    starts=5,
    streams=60,
    guarded=40,
    logins=200,
    identity=Amount(rounds=4, calls=500, requests=300, refusals=100),
)
QUICK = Effort(
    rounds=1,
    turns={1: 100, 16: 40, 64: 10},
    graph_turns={1: 40, 16: 10, 64: 10},
    threads=1,
    starts=2,
    streams=10,
    guarded=10,
    logins=40,
    identity=Amount(rounds=1, calls=200, requests=100, refusals=30),
)


@dataclass(frozen=True, slots=True)
class Round:
    """Turns of one round: milliseconds each, and how many in a second."""

    cpu: float
    p50: float
    p99: float
    per_second: float

    @classmethod
    def of(cls, outcome: Outcome, cpu_seconds: float) -> Self:
        latencies = sorted(outcome.latencies)
        count = len(latencies)
        return cls(
            cpu=cpu_seconds / count * 1000,
            p50=latencies[count // 2] * 1000,
            p99=latencies[int(count * 0.99)] * 1000,
            per_second=count / outcome.seconds,
        )


@dataclass(frozen=True, slots=True)
class Turns:
    """What turns cost one kind of agent with a number of clients."""

    agent: str
    auth: str
    clients: int
    rounds: Sequence[Round]
    memory: float
    """RSS in MB, afterwards."""

    @property
    def best(self) -> Round:
        """The least disturbed round: the cost itself does not vary, what else runs does."""
        return min(self.rounds, key=lambda one: one.cpu)


@dataclass(frozen=True, slots=True)
class Small:
    """Times in seconds, sizes in MB."""

    first_deltas: Sequence[float]
    to_ping: Sequence[float]
    help: Sequence[float]
    fsync: Sequence[float]
    idle: Sequence[Memory]


Growth = Mapping[int, Sequence[float]]
"""Messages that are in the thread already → CPU ms per turn, one figure per round."""


@dataclass(frozen=True, slots=True)
class Figures:
    """`growth` is what served agents take, `bare` what a graph takes without a server, `guards`
    what turns with each of `GUARDS` take, by 16 clients with JWT.
    """

    turns: Sequence[Turns]
    growth: Mapping[str, Growth]
    bare: Mapping[str, Growth]
    small: Small
    guards: Mapping[str, Sequence[Round]]
    identity: Identity
    logins: Logins


def measure(effort: Effort, cores: Cores, say: Say) -> Figures:
    """Takes minutes. Raises RuntimeError when a server does not answer as it should."""
    return Figures(
        turns=_measure_all_turns(effort, cores, say),
        growth=_measure_all_growth(effort, cores, say),
        bare=_measure_bare(effort, cores, say),
        small=_measure_small(effort, cores, say),
        guards=_measure_guards(effort, cores, say),
        identity=measure_identity(effort.identity, cores, say),
        logins=measure_logins(effort.logins, cores, say),
    )


def _measure_all_turns(effort: Effort, cores: Cores, say: Say) -> list[Turns]:
    found: list[Turns] = []
    for name, agent, auth in SERVED:
        say(f"turns: {name}, auth {auth}")
        amount = effort.graph_turns if agent == GRAPH else effort.turns
        with Server(agent, cores=cores, use_jwt=auth == "jwt") as server:
            found += _measure_turns(server, name, auth, amount, effort.rounds)
    return found


def _measure_turns(
    server: Server, agent: str, auth: str, amount: Mapping[int, int], rounds: int
) -> list[Turns]:
    found: dict[int, list[Round]] = defaultdict(list)
    _run_round(server, 4, 40)
    for _ in range(rounds):
        for clients, turns in amount.items():
            found[clients].append(_run_round(server, clients, turns))
    rss = server.read_memory().rss
    return [Turns(agent, auth, clients, measured, rss) for clients, measured in found.items()]


def _run_round(server: Server, clients: int, turns: int) -> Round:
    """On new threads, so that what a round costs does not depend on the rounds before it."""
    return _run_measured(server, [_plan_turns(server, client, turns) for client in range(clients)])


def _measure_guards(effort: Effort, cores: Cores, say: Say) -> dict[str, list[Round]]:
    """Side by side, so that whatever else the machine does disturbs all of them."""
    say("turns: audit log, rate limits")
    found: dict[str, list[Round]] = defaultdict(list)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(Server(EXAMPLE, cores=cores, use_jwt=True, settings=settings))
            for name, settings in GUARDS.items()
        }
        for server in servers.values():
            _run_round(server, 4, 40)
        for _ in range(effort.rounds):
            for name, server in servers.items():
                found[name].append(_run_round(server, 16, effort.guarded))
    return found


def _plan_turns(server: Server, client: int, turns: int) -> list[bytes]:
    token = server.token_for(client)
    thread_ids = _create_threads(server, turns // TURNS_PER_THREAD, token)
    return _flatten(
        [_turn(thread_id, "Hello", token)] * TURNS_PER_THREAD for thread_id in thread_ids
    )


def _run_measured(server: Server, plans: Sequence[Sequence[bytes]]) -> Round:
    before = server.cpu_seconds()
    outcome = run_clients(server.port, plans, LONGEST_RUN)
    return Round.of(outcome, server.cpu_seconds() - before)


def _create_threads(server: Server, count: int, token: str | None) -> list[str]:
    creation = build_request("POST", "/threads", {}, token)
    created = run_clients(server.port, [[creation] * count], LONGEST_RUN)
    return [json.loads(body)["thread_id"] for body in created.bodies]


def _flatten(plans: Iterable[Sequence[bytes]]) -> list[bytes]:
    return list(chain.from_iterable(plans))


def _turn(thread_id: str, content: str, token: str | None, *, stream: bool = False) -> bytes:
    body = {"content": content, "stream": stream}
    return build_request("POST", f"/threads/{thread_id}/messages", body, token)


def _measure_all_growth(effort: Effort, cores: Cores, say: Say) -> dict[str, Growth]:
    found: dict[str, Growth] = {}
    for name, agent in (("function", LONG_ECHO), ("LangGraph", GRAPH)):
        say(f"growth: {name}")
        with Server(agent, cores=cores) as server:
            found[name] = _measure_growth(server, effort)
    return found


def _measure_growth(server: Server, effort: Effort) -> Growth:
    found: dict[int, list[float]] = defaultdict(list)
    _run_round(server, 1, 50)
    for _ in range(effort.rounds):
        for length in LENGTHS:
            found[length].append(_run_long(server, length, effort.threads))
    return found


def _run_long(server: Server, length: int, threads: int) -> float:
    thread_ids = _create_threads(server, threads, None)
    if length:
        filling = [_turn(thread_id, f"fill {length}", None) for thread_id in thread_ids]
        run_clients(server.port, [filling], LONGEST_RUN)
    turns = ([_turn(thread_id, "Hello", None)] * TURNS_PER_THREAD for thread_id in thread_ids)
    return _run_measured(server, [_flatten(turns)]).cpu


def _measure_bare(effort: Effort, cores: Cores, say: Say) -> dict[str, Growth]:
    say("bare graph.ainvoke")
    command = [sys.executable, "-m", "benchmarks.graphs", str(effort.rounds), str(effort.threads)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        os.sched_setaffinity(process.pid, {cores.server})
        printed, _ = process.communicate(timeout=120)
    return {
        name: {int(length): measured for length, measured in lengths.items()}
        for name, lengths in json.loads(printed).items()
    }


def _measure_small(effort: Effort, cores: Cores, say: Say) -> Small:
    say("streaming, start, memory")
    to_ping, idle = [], []
    for _ in range(effort.starts):
        with Server(EXAMPLE, cores=cores) as server:
            to_ping.append(server.seconds_to_ping)
            time.sleep(0.3)
            idle.append(server.read_memory())
    return Small(
        first_deltas=_measure_stream(effort, cores),
        to_ping=to_ping,
        help=[_time_help() for _ in range(effort.starts)],
        fsync=time_fsync(),
        idle=idle,
    )


def _measure_stream(effort: Effort, cores: Cores) -> list[float]:
    with Server(STAMPED, cores=cores, use_jwt=True) as server:
        token = server.token_for(0)
        delays: list[float] = []
        for thread_id in _create_threads(server, effort.streams // TURNS_PER_THREAD + 1, token):
            request = _turn(thread_id, "Hello", token, stream=True)
            delays += time_first_delta(server.port, [request] * TURNS_PER_THREAD)
    return delays[TURNS_PER_THREAD:]


def _time_help() -> float:
    script = Path(sys.executable).with_name("agentflow")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "agentflow_server"]
    begun = time.perf_counter()
    subprocess.run([*command, "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def time_fsync() -> list[float]:
    """What the disk takes to make 4 kB durable: the floor of every durable turn."""
    taken = []
    with tempfile.NamedTemporaryFile(prefix="agentflow-", buffering=0) as file:
        for _ in range(50):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return taken


def growth_per_message(lengths: Growth) -> float:
    """Microseconds of CPU per turn for each message that is in the thread already."""
    longest = max(LENGTHS)
    return (min(lengths[longest]) - min(lengths[0])) * 1000 / longest


def typical(values: Sequence[float]) -> float:
    return statistics.median(values)
