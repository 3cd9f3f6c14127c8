"""RESULTS.md: the figures beside their budgets."""

import platform
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.agents import LENGTHS
from benchmarks.cases import Figures, Round, Small, growth_per_message, typical
from benchmarks.identity_report import (
    COST_COLUMNS,
    GUARD_COLUMNS,
    KEY_COLUMNS,
    LOGIN_COLUMNS,
    REFUSAL_COLUMNS,
    describe_costs,
    describe_guards,
    describe_keys,
    describe_logins,
    describe_refusals,
    list_limits,
)

PACKAGES = (
    *("agentflow-server", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic"),
    *("pyjwt", "langgraph", "langgraph-checkpoint", "langchain-core"),
)
TURN_COLUMNS = (
    *("agent", "auth", "clients"),
    *("CPU ms (median)", "p50 ms", "p99 ms", "turns/s", "RSS MB"),
)


@dataclass(frozen=True, slots=True)
class Budget:
    what: str
    limit: float
    found: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def cells(self) -> tuple[str, ...]:
        sign = "≥" if self.at_least else "≤"
        return (
            self.what,
            f"{sign} {self.limit:g} {self.unit}",
            f"{self.found:z.{0 if self.limit >= 50 else 2}f} {self.unit}",
            "met" if self.met else "**missed**",
        )


def list_budgets(figures: Figures) -> list[Budget]:
    small = figures.small
    alone = _best(figures, "function (def)", "jwt", 1)
    busy = _best(figures, "function (def)", "jwt", 16)
    graph = _best(figures, "LangGraph", "jwt", 1)
    bare = min(figures.bare["InMemorySaver"][0])
    added = growth_per_message(figures.growth["LangGraph"])
    growth = {name: growth_per_message(lengths) for name, lengths in figures.bare.items()}
    return [
        Budget("CPU per durable turn, JWT, 16 clients", 1.4, busy.cpu, "ms"),
        Budget("CPU per durable turn, JWT, 1 client", 2.5, alone.cpu, "ms"),
        Budget("turns per second, JWT, 16 clients", 700, busy.per_second, "/s", at_least=True),
        Budget("LangGraph turn, JWT, 1 client, above `ainvoke`", 2.5, graph.cpu - bare, "ms"),
        Budget(
            "growth per message in the thread, function",
            5,
            growth_per_message(figures.growth["function"]),
            "µs",
        ),
        *(
            Budget(f"the same, LangGraph, above `ainvoke` with {name}", 5, added - own, "µs")
            for name, own in growth.items()
        ),
        Budget("first streamed byte after the first delta", 3, _ms(small.first_deltas), "ms"),
        Budget("`agentflow --help`", 0.4, typical(small.help), "s"),
        Budget("start to the first `/ping`", 1.5, typical(small.to_ping), "s"),
        Budget("idle memory (RSS)", 80, typical([memory.rss for memory in small.idle]), "MB"),
        *(Budget(*limit) for limit in list_limits(figures)),
    ]


def write_report(figures: Figures, *, load: tuple[float, float]) -> str:
    """The whole page. `load` is the load average before and after."""
    lines = [
        "# Results",
        "",
        "Written by `make bench`; [README.md](README.md) says how it is measured, and where the time",
        "goes. CPU is user and system time of the whole server process, in the least disturbed of",
        "several rounds; the median of the rounds is beside it.",
        "",
        *write_table(("", ""), describe_machine(load, figures.small.fsync)),
        "## Budgets",
        "",
        *write_table(
            ("", "budget", "measured", ""), (budget.cells() for budget in list_budgets(figures))
        ),
        "## Echo turns",
        "",
        *write_table(TURN_COLUMNS, _describe_turns(figures)),
        "## Growth with the thread's length",
        "",
        "CPU ms per turn with one client; `ainvoke` is the same graph called without a server, with",
        "LangGraph's own savers: one that keeps everything in memory, and its SQLite one.",
        "",
        *write_table(
            ("", *(f"{length:,} messages" for length in LENGTHS), "µs per message"),
            _describe_growth(figures),
        ),
        "## Streaming, start, memory",
        "",
        *write_table(("", "median", "best", "worst"), _describe_small(figures.small)),
        *_report_identity(figures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _report_identity(figures: Figures) -> Iterator[str]:
    identity = figures.identity
    yield from ("## Knowing a caller", "")
    yield "CPU. A request is `GET /agents`; a fresh token is seen for the first time."
    yield ""
    yield from write_table(COST_COLUMNS, describe_costs(identity))
    yield from ("## Refusing a bad token", "")
    yield from write_table(REFUSAL_COLUMNS, describe_refusals(identity))
    yield from ("## API keys: the time until the answer", "")
    yield "Medians, in mixed order. A guess should not show whether there is a key with that id."
    yield ""
    yield from write_table(KEY_COLUMNS, describe_keys(identity))
    yield from ("## Refused logins: the time until the answer", "")
    yield "The password grant, in mixed order; the disabled user's password is right."
    yield ""
    yield from write_table(LOGIN_COLUMNS, describe_logins(figures.logins))
    yield from ("## Audit log and rate limits, per turn", "")
    yield "Echo turns of a function with JWT, 16 clients, in the best of rounds side by side."
    yield ""
    yield from write_table(GUARD_COLUMNS, describe_guards(figures.guards))


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def describe_machine(
    load: tuple[float, float], fsync: Sequence[float]
) -> Iterator[tuple[str, str]]:
    cores = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in cores if line.startswith("model name")]
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    yield "date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield "processor", f"{len(models)} × {models[0] if models else platform.machine()}"
    yield "load average", f"{load[0]:.1f} before, {load[1]:.1f} after"
    yield "disk", f"{_file_system()}; a durable write of 4 kB: {_ms(fsync):.2f} ms"
    yield "system", f"{system}, Linux {platform.release().partition('-')[0]}"
    yield "Python", f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    yield "packages", ", ".join(_versions())


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue


def _file_system() -> str:
    """The type of the one that holds the temporary databases."""
    folder = Path(tempfile.gettempdir()).resolve()
    mounts = [
        line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    ]
    holding = [mount for mount in mounts if folder.is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2]


def _describe_turns(figures: Figures) -> Iterator[tuple[str, ...]]:
    for turns in figures.turns:
        best = turns.best
        median = typical([one.cpu for one in turns.rounds])
        yield (
            turns.agent,
            turns.auth,
            str(turns.clients),
            f"{best.cpu:.2f} ({median:.2f})",
            f"{best.p50:.1f}",
            f"{best.p99:.1f}",
            f"{best.per_second:.0f}",
            f"{turns.memory:.0f}",
        )


def _describe_growth(figures: Figures) -> Iterator[tuple[str, ...]]:
    served = {f"{name}, served": lengths for name, lengths in figures.growth.items()}
    bare = {f"`ainvoke`, {name}": lengths for name, lengths in figures.bare.items()}
    for name, lengths in {**served, **bare}.items():
        yield (
            name,
            *(f"{min(lengths[length]):.2f}" for length in LENGTHS),
            f"{growth_per_message(lengths):.1f}",
        )


def _describe_small(small: Small) -> Iterator[tuple[str, ...]]:
    for what, values, unit, factor in (
        ("first streamed byte after the first delta", small.first_deltas, "ms", 1000),
        ("`agentflow --help`", small.help, "s", 1),
        ("start to the first `/ping`", small.to_ping, "s", 1),
        ("idle, RSS", [memory.rss for memory in small.idle], "MB", 1),
        ("idle, PSS", [memory.pss for memory in small.idle], "MB", 1),
    ):
        shown = (typical(values), min(values), max(values))
        digits = 1 if unit == "MB" else 2
        yield what, *(f"{value * factor:.{digits}f} {unit}" for value in shown)


def _best(figures: Figures, agent: str, auth: str, clients: int) -> Round:
    wanted = (agent, auth, clients)
    return next(t.best for t in figures.turns if (t.agent, t.auth, t.clients) == wanted)


def _ms(seconds: Sequence[float]) -> float:
    return typical(seconds) * 1000
