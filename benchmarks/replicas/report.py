"""RESULTS-replicas.md: the figures of replicas."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from benchmarks.cases import typical
from benchmarks.peers.measuring import Load
from benchmarks.replicas.measuring import Figures
from benchmarks.report import describe_machine, write_table

COLUMNS = (
    *("processes", "clients", "turns/s", "p50 ms", "p99 ms"),
    *("CPU ms per turn, servers", "PostgreSQL", "together"),
)


def write_report(figures: Figures, *, command: str, load: tuple[float, float]) -> str:
    """The whole page. `load` is the load average before and after."""
    lines = [
        "# Replicas on one PostgreSQL",
        "",
        f"Written by `{command}`; [README.md](README.md#replicas) says how it is measured.",
        "",
        *write_table(("", ""), _describe_machine(figures, load)),
        *write_table(COLUMNS, _describe_loads(figures)),
        *write_table(("", "median", "best", "worst"), _describe_rest(figures)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _describe_machine(figures: Figures, load: tuple[float, float]) -> Iterator[tuple[str, str]]:
    yield from describe_machine(load, figures.fsync)
    drivers = ", ".join(f"{name} {version(name)}" for name in ("psycopg", "psycopg-pool"))
    yield "PostgreSQL", f"{figures.postgres_version}, `fsync` and `full_page_writes` on; {drivers}"


def _describe_loads(figures: Figures) -> Iterator[tuple[str, ...]]:
    for processes, by_clients in figures.loads.items():
        for clients, rounds in by_clients.items():
            best = _quietest(rounds)
            yield (
                str(processes) if processes else "1, SQLite",
                str(clients),
                f"{best.per_second:.0f}",
                f"{best.p50:.1f}",
                f"{best.p99:.1f}",
                f"{best.server:.2f}",
                f"{best.database:.2f}" if processes else "",
                f"{best.cpu:.2f}",
            )


def _quietest(rounds: Sequence[Load]) -> Load:
    """What else runs on the machine only ever adds to the CPU."""
    return min(rounds, key=lambda load: load.cpu)


def _describe_rest(figures: Figures) -> Iterator[tuple[str, ...]]:
    for where, lags in figures.lags.items():
        yield f"event, read on the {where} replica, ms", *_spread([lag * 1000 for lag in lags], 1)
    for lease, taken in figures.failovers.items():
        yield f"`kill -9` until begun again, lease {lease:g} s, s", *_spread(taken, 1)
    for clients, count in figures.statements.items():
        yield f"statements per turn, {clients} clients", f"{count:.1f}", "", ""
    idle = figures.idle
    yield "idle replica: statements a second", f"{idle.statements:.1f}", "", ""
    yield "idle replica: CPU of one core", f"{idle.server:.2%}", "", ""
    yield "idle replica: CPU of PostgreSQL", f"{idle.database:.2%}", "", ""


def _spread(values: Sequence[float], digits: int) -> Iterator[str]:
    for value in (typical(values), min(values), max(values)):
        yield f"{value:.{digits}f}"
