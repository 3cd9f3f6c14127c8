"""What is measured of replicas, and how often."""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

from benchmarks.cases import time_fsync
from benchmarks.peers.measuring import Load
from benchmarks.peers.processes import Tree
from benchmarks.postgres import open_postgres
from benchmarks.replicas.fleet import Fleet, open_fleet
from benchmarks.replicas.reading import Stamp, read_stamps
from benchmarks.replicas.statements import StatementLog
from tests.postgres_server import PostgresServer

ECHO = "examples.echo.agent:app"
STAMPING = "benchmarks.replicas.agents:stamping"
ENDLESS = "benchmarks.replicas.agents:endless"

SETTLING_SECONDS = 2.0
"""After its start a server looks for much at once."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure. `turns`: clients → turns of each client in a round; `kills`: seconds of
    a lease → how many processes are killed."""

    processes: Sequence[int]
    turns: Mapping[int, int]
    rounds: int
    counted: int
    idle_seconds: float
    streams: int
    kills: Mapping[float, int]


FULL = Effort(
    processes=(1, 2, 4),
    turns={1: 150, 16: 40, 64: 20},
    rounds=3,
    counted=200,
    idle_seconds=10.0,
    streams=4,
    kills={15.0: 2, 3.0: 4},
)
QUICK = Effort(
    processes=(1, 2),
    turns={1: 50, 16: 20, 64: 10},
    rounds=1,
    counted=50,
    idle_seconds=5.0,
    streams=1,
    kills={3.0: 1},
)


@dataclass(frozen=True, slots=True)
class Idle:
    """What a replica does when nobody asks anything: CPU as a share of one core."""

    server: float
    database: float
    statements: float
    """A second."""


@dataclass(frozen=True, slots=True)
class Figures:
    """`loads`: number of processes (0: one on SQLite) → clients → the rounds; `statements`: clients
    → statements per turn; `lags`: seconds until a reader has an event, on the worker's own replica
    and on another; `failovers`: lease → seconds from each kill until the run has begun elsewhere.
    """

    loads: Mapping[int, Mapping[int, Sequence[Load]]]
    statements: Mapping[int, float]
    idle: Idle
    lags: Mapping[str, Sequence[float]]
    failovers: Mapping[float, Sequence[float]]
    fsync: Sequence[float]
    postgres_version: str


def measure(effort: Effort, say: Say) -> Figures:
    """Takes minutes. Raises RuntimeError when a server does not answer as it should."""
    with open_postgres() as postgres:
        version = str(postgres.execute("SHOW server_version")[0][0])
        loads = {0: _measure_sqlite(effort, say)}
        for count in effort.processes:
            loads[count] = _measure_loads(postgres, count, effort, say)
        statements, idle = _count_statements(postgres, effort, say)
        return Figures(
            loads=loads,
            statements=statements,
            idle=idle,
            lags=_measure_lags(postgres, effort, say),
            failovers=_measure_failovers(postgres, effort, say),
            fsync=time_fsync(),
            postgres_version=version,
        )


@contextmanager
def _sharing(
    postgres: PostgresServer, count: int, agent: str, **runs: float | str
) -> Iterator[Fleet]:
    """On a new database."""
    with (
        postgres.new_database() as url,
        open_fleet(agent, count, url=url, postgres=Tree(postgres.pid), runs=runs) as fleet,
    ):
        yield fleet


# Turns


def _measure_sqlite(effort: Effort, say: Say) -> Mapping[int, Sequence[Load]]:
    say("turns: SQLite")
    with open_fleet(ECHO, 1, url=None, postgres=None) as fleet:
        return _run_rounds(fleet, effort)


def _measure_loads(
    postgres: PostgresServer, count: int, effort: Effort, say: Say
) -> Mapping[int, Sequence[Load]]:
    say(f"turns: {count} processes")
    with _sharing(postgres, count, ECHO) as fleet:
        return _run_rounds(fleet, effort)


def _run_rounds(fleet: Fleet, effort: Effort) -> Mapping[int, Sequence[Load]]:
    found: dict[int, list[Load]] = defaultdict(list)
    _run_round(fleet, 8, 30)
    for _ in range(effort.rounds):
        for clients, turns in effort.turns.items():
            found[clients].append(_run_round(fleet, clients, turns))
    return found


def _run_round(fleet: Fleet, clients: int, turns: int) -> Load:
    plans = [fleet.plan_turns(client, turns) for client in range(clients)]
    before = fleet.spent()
    outcome = fleet.run(plans)
    return Load.of(outcome, fleet.spent() - before)


# Statements, and doing nothing


def _count_statements(
    postgres: PostgresServer, effort: Effort, say: Say
) -> tuple[Mapping[int, float], Idle]:
    """CPU while statements are logged would say little, but for a replica that sends few."""
    say("statements, idle replica")
    with postgres.new_database() as url:
        log, tree = StatementLog.of(postgres, url), Tree(postgres.pid)
        with open_fleet(ECHO, 1, url=url, postgres=tree) as fleet:
            _run_round(fleet, 8, 30)
            per_turn = {
                clients: _count_per_turn(fleet, log, clients, effort) for clients in (1, 16)
            }
            time.sleep(SETTLING_SECONDS)
            return per_turn, _measure_idle(fleet, log, effort.idle_seconds)


def _count_per_turn(fleet: Fleet, log: StatementLog, clients: int, effort: Effort) -> float:
    turns = max(10, effort.counted // clients)
    plans = [fleet.plan_turns(client, turns) for client in range(clients)]
    before = log.count()
    outcome = fleet.run(plans)
    return (log.count() - before) / len(outcome.latencies)


def _measure_idle(fleet: Fleet, log: StatementLog, seconds: float) -> Idle:
    before, counted, begun = fleet.spent(), log.count(), time.monotonic()
    time.sleep(seconds)
    spent, passed = fleet.spent() - before, time.monotonic() - begun
    return Idle(
        server=spent.server / passed,
        database=spent.database / passed,
        statements=(log.count() - counted) / passed,
    )


# Events


def _measure_lags(
    postgres: PostgresServer, effort: Effort, say: Say
) -> Mapping[str, Sequence[float]]:
    say("events on the same and on another replica")
    found: dict[str, list[float]] = defaultdict(list)
    with _sharing(postgres, 2, STAMPING) as fleet:
        worker, other = fleet.servers
        for _ in range(effort.streams):
            for where, reader in (("same", worker), ("other", other)):
                run = fleet.start_run(worker)
                stamps = read_stamps(reader.port, *run, fleet.token())
                found[where] += [stamp.arrived - stamp.made for stamp in stamps]
    return found


# Failover


def _measure_failovers(
    postgres: PostgresServer, effort: Effort, say: Say
) -> Mapping[float, Sequence[float]]:
    """All leases at the same time: most of it is waiting."""
    say("failover")
    with ThreadPoolExecutor() as threads:
        found = {
            lease: threads.submit(_kill_workers, postgres, lease, kills)
            for lease, kills in effort.kills.items()
        }
        return {lease: future.result() for lease, future in found.items()}


def _kill_workers(postgres: PostgresServer, lease: float, kills: int) -> Sequence[float]:
    """A run loses one process after the other."""
    taken: list[float] = []
    with _sharing(
        postgres, kills + 1, ENDLESS, lease=lease, on_crash="retry", max_attempts=kills + 1
    ) as fleet:
        run = fleet.start_run(fleet.servers[0])
        living = {server.pid: server.port for server in fleet.servers}
        seen: set[int] = set()
        for _ in range(kills):
            worker = _await_begin(fleet, [*living.values()][-1], run, seen).pid
            seen.add(worker)
            del living[worker]
            killed = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            again = _await_begin(fleet, [*living.values()][-1], run, seen)
            taken.append(again.made - killed)
    return taken


def _await_begin(fleet: Fleet, port: int, run: tuple[str, str], seen: Collection[int]) -> Stamp:
    """The first one from a process that is not among `seen`, read at `port`."""
    with closing(read_stamps(port, *run, fleet.token())) as stamps:
        return next(stamp for stamp in stamps if stamp.pid not in seen)
