"""What is measured of every contender: the same, and the same amount."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from subprocess import SubprocessError
from typing import Self

from benchmarks.load import Outcome
from benchmarks.peers.behaviours import Behaviour, observe
from benchmarks.peers.contenders import Contender
from benchmarks.peers.environments import Environment, NotInstalled, prepare_environment
from benchmarks.peers.processes import Spent
from benchmarks.peers.served import Served, served
from benchmarks.peers.streaming import time_first_reply
from benchmarks.server import Cores

CLIENTS = 16
SHORT, LONG = 2, 100
"""Messages that are in a thread already when its turns are measured."""

TURNS_PER_THREAD = 5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure. Threads are those of each client, `alone` of the only one."""

    passes: int
    threads: int
    threads_alone: int
    streams: int
    crashes: int


FULL = Effort(passes=2, threads=2, threads_alone=4, streams=10, crashes=3)
QUICK = Effort(passes=1, threads=1, threads_alone=1, streams=3, crashes=1)


@dataclass(frozen=True, slots=True)
class Load:
    """Turns of one round: milliseconds each, and how many in a second."""

    server: float
    database: float
    p50: float
    p99: float
    per_second: float

    @classmethod
    def of(cls, outcome: Outcome, spent: Spent) -> Self:
        latencies = sorted(outcome.latencies)
        count = len(latencies)
        return cls(
            server=spent.server / count * 1000,
            database=spent.database / count * 1000,
            p50=latencies[count // 2] * 1000,
            p99=latencies[int(count * 0.99)] * 1000,
            per_second=count / outcome.seconds,
        )

    @property
    def cpu(self) -> float:
        return self.server + self.database


@dataclass(frozen=True, slots=True)
class Pass:
    """One start of a server, and all that was then asked of it. Seconds and MB."""

    to_ping: float
    idle: float
    alone: Load
    busy: Load
    long: Load
    first_reply: Sequence[float]
    afterwards: float


@dataclass(slots=True)
class Findings:
    """Of one contender. `problem` says why there is nothing more."""

    contender: Contender
    versions: Mapping[str, str] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)
    behaviours: Mapping[Behaviour, str] = field(default_factory=dict)
    problem: str | None = None


def measure(
    contenders: Sequence[Contender], folder: Path, effort: Effort, cores: Cores, say: Say
) -> list[Findings]:
    """Every contender once, then all of them again: what else the machine does hits all."""
    found = [Findings(contender) for contender in contenders]
    environments = _prepare_environments(found, folder, say)
    for number in range(effort.passes):
        for one in found:
            if one.problem is None:
                say(f"{number + 1}/{effort.passes}  {one.contender.name}")
                environment = environments[one.contender.package]
                try:
                    one.passes.append(_measure_once(one.contender, environment, effort, cores))
                    if number == 0:
                        one.behaviours = observe(one.contender, environment, cores, effort.crashes)
                except (RuntimeError, OSError, SubprocessError) as exc:
                    one.problem = f"could not be measured: {exc}"
                    say(one.problem)
    return found


def count_turns(effort: Effort) -> int:
    """How many a server has had when its memory is read for the second time."""
    busy = CLIENTS * effort.threads * (TURNS_PER_THREAD + 1)
    alone = effort.threads_alone * (TURNS_PER_THREAD + 1)
    return 3 * busy + alone + effort.streams + 1


def _prepare_environments(
    found: Sequence[Findings], folder: Path, say: Say
) -> dict[str, Environment]:
    environments: dict[str, Environment] = {}
    for one in found:
        package = one.contender.package
        if package not in environments and one.problem is None:
            say(f"installing {package}")
            place = folder / package.replace(" ", "-").lower()
            try:
                environments[package] = prepare_environment(
                    place, one.contender.installed, fresh=one.contender.local
                )
            except NotInstalled as exc:
                one.problem = f"could not be installed: {exc}"
                continue
        one.versions = environments[package].versions
    return environments


def _measure_once(
    contender: Contender, environment: Environment, effort: Effort, cores: Cores
) -> Pass:
    with served(contender, environment, cores) as server:
        server.start()
        idle = server.memory()
        _run_round(server, CLIENTS, effort.threads, SHORT)
        return Pass(
            to_ping=server.seconds_to_ping,
            idle=idle,
            alone=_run_round(server, 1, effort.threads_alone, SHORT),
            busy=_run_round(server, CLIENTS, effort.threads, SHORT),
            long=_run_round(server, CLIENTS, effort.threads, LONG),
            first_reply=_measure_streams(server, effort.streams),
            afterwards=server.memory(),
        )


def _run_round(server: Served, clients: int, threads: int, length: int) -> Load:
    """On new threads, so that what a round costs does not depend on the rounds before it."""
    plans = [_plan_turns(server, client, threads, length) for client in range(clients)]
    before = server.spent()
    outcome = server.run(plans)
    return Load.of(outcome, server.spent() - before)


def _plan_turns(server: Served, client: int, threads: int, length: int) -> list[bytes]:
    thread_ids = server.new_threads(client, threads, length)
    turns = ([server.turn(one, "Hello", client)] * TURNS_PER_THREAD for one in thread_ids)
    return list(chain.from_iterable(turns))


def _measure_streams(server: Served, count: int) -> list[float]:
    (thread_id,) = server.new_threads(0, 1, SHORT)
    return time_first_reply(server.port, [server.turn(thread_id, "Hello", 0, stream=True)] * count)
