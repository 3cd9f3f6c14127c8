"""RESULTS.md: one table, with a column for each contender."""

import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers.behaviours import Behaviour
from benchmarks.peers.environments import PYTHON
from benchmarks.peers.measuring import (
    CLIENTS,
    LONG,
    SHORT,
    Effort,
    Findings,
    Load,
    Pass,
    count_turns,
)

GOAL = 10
"""Durable turns per CPU second, as a multiple of the best peer's."""

SHOWN = (
    *("agentflow-server", "10xgraph-api", "10xgraph", "langgraph-cli", "langgraph-api"),
    *("langgraph-runtime-inmem", "aegra-api", "langgraph", "langgraph-checkpoint", "fastapi"),
    *("starlette", "uvicorn", "uvloop", "httptools", "gunicorn"),
)


@dataclass(frozen=True, slots=True)
class Measure:
    """`read` makes one figure of all passes; `compared` if it is good to have less, or more."""

    what: str
    read: Callable[[Sequence[Pass]], float]
    digits: int = 1
    compared: bool = True
    more_is_better: bool = False
    durable_only: bool = False

    def of(self, one: Findings) -> float | None:
        left_out = self.durable_only and one.contender.loss is not None
        return None if one.problem or left_out else self.read(one.passes)

    def ratio(self, one: Findings, peers: Sequence[Findings]) -> float | None:
        """How many times as good as the best of them."""
        own = self.of(one)
        values = [value for peer in peers if (value := self.of(peer)) is not None]
        if not self.compared or not values or not own:
            return None
        best = (max if self.more_is_better else min)(values)
        ratio = own / best if self.more_is_better else best / own
        return ratio if ratio > 0 else None


DURABLE = Measure(
    f"durable turns per CPU second, {CLIENTS} clients",
    lambda passes: 1000 / _busy(passes).cpu,
    digits=0,
    more_is_better=True,
    durable_only=True,
)


def list_measures(effort: Effort) -> list[Measure]:
    many = f"{CLIENTS} clients"
    return [
        DURABLE,
        Measure(
            f"turns per CPU second, durable or not, {many}",
            lambda passes: 1000 / _busy(passes).cpu,
            digits=0,
            more_is_better=True,
        ),
        Measure(f"CPU per turn, {many}, ms", lambda passes: _busy(passes).cpu),
        Measure("– of which database, ms", lambda p: _busy(p).database, compared=False),
        Measure("CPU per turn, 1 client, ms", lambda passes: _alone(passes).cpu),
        Measure(f"CPU per turn after {LONG} messages, ms", lambda passes: _long(passes).cpu),
        Measure(
            f"– what {LONG - SHORT} messages more add, ms",
            lambda passes: _long(passes).cpu - _busy(passes).cpu,
        ),
        Measure(
            f"turns per second, {many}",
            lambda passes: _busy(passes).per_second,
            digits=0,
            more_is_better=True,
        ),
        Measure("turn, 1 client, p50, ms", lambda passes: _alone(passes).p50),
        Measure("turn, 1 client, p99, ms", lambda passes: _alone(passes).p99),
        Measure(f"turn, {many}, p50, ms", lambda passes: _busy(passes).p50, digits=0),
        Measure(f"turn, {many}, p99, ms", lambda passes: _busy(passes).p99, digits=0),
        Measure("first words of a streamed answer, median, ms", _first_words),
        Measure("start to the first ping, s", lambda p: min(one.to_ping for one in p), digits=2),
        Measure("memory when idle, MB", lambda p: min(one.idle for one in p), digits=0),
        Measure(
            f"memory after {count_turns(effort)} turns, MB",
            lambda passes: min(one.afterwards for one in passes),
            digits=0,
        ),
    ]


def _quietest(loads: Sequence[Load]) -> Load:
    """What else runs on the machine only ever adds to the CPU."""
    return min(loads, key=lambda load: load.cpu)


def _busy(passes: Sequence[Pass]) -> Load:
    return _quietest([one.busy for one in passes])


def _alone(passes: Sequence[Pass]) -> Load:
    return _quietest([one.alone for one in passes])


def _long(passes: Sequence[Pass]) -> Load:
    return _quietest([one.long for one in passes])


def _first_words(passes: Sequence[Pass]) -> float:
    return min(statistics.median(one.first_reply) for one in passes) * 1000


def write_report(
    found: Sequence[Findings], effort: Effort, *, command: str, load: tuple[float, float]
) -> str:
    """The whole page. `load` is the load average before and after."""
    measures = list_measures(effort)
    lines = [
        "# Our server and its peers",
        "",
        f"Written by `{command}`; [the benchmarks' README](../README.md#peers) says how.",
        "",
        *_describe_machine(load),
        "",
        "Behind a figure of ours: how many times as good as that of the best peer, whichever that",
        "is; bold where it is not as good.",
        "",
        *_write_table(found, measures),
        "",
        *_judge(found, measures),
        "",
        "How each is run:",
        "",
        *_describe_contenders(found),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _write_table(found: Sequence[Findings], measures: Sequence[Measure]) -> Iterator[str]:
    names = (
        f"{one.contender.package}<br>{one.contender.agent}<br>{one.contender.storage}"
        for one in found
    )
    yield _row("", names)
    yield "|---" * (len(found) + 1) + "|"
    if any(one.problem for one in found):
        yield _row("", (_first_line(one.problem) for one in found))
    for measure in measures:
        yield _row(measure.what, (_cell(measure, one, found) for one in found))
    yield _row("a power cut may lose an acknowledged turn", map(_loss, found))
    for behaviour in Behaviour:
        yield _row(behaviour, (one.behaviours.get(behaviour, "") for one in found))


def _row(what: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join([what, *cells])} |"


def _cell(measure: Measure, one: Findings, found: Sequence[Findings]) -> str:
    value = measure.of(one)
    if value is None:
        return "" if one.problem else "–"
    shown = f"{value:z,.{measure.digits}f}"
    ratio = measure.ratio(one, _peers(found)) if one.contender.ours else None
    if ratio is None:
        return shown
    return f"{shown} (×{ratio:.1f})" if ratio >= 1 else f"**{shown} (×{ratio:.2f})**"


def _peers(found: Sequence[Findings], agent: str | None = None) -> list[Findings]:
    """All of them, or those that serve the same agent."""
    others = [one for one in found if not one.contender.ours]
    return [one for one in others if agent in {None, one.contender.agent}]


def _loss(one: Findings) -> str:
    return f"yes: {one.contender.loss}" if one.contender.loss else "no"


def _first_line(problem: str | None) -> str:
    return (problem or "").partition("\n")[0].replace("|", "\\|")


def _judge(found: Sequence[Findings], measures: Sequence[Measure]) -> Iterator[str]:
    yield f"The goal is {GOAL} times the best peer's durable turns per CPU second, and to be ahead in"
    yield "every row:"
    yield ""
    for one in found:
        ratio = DURABLE.ratio(one, _peers(found)) if one.contender.ours else None
        if ratio is not None:
            met = "met" if ratio >= GOAL else "**missed**"
            behind = _list_behind(one, _peers(found), measures)
            yield f"- {one.contender.name}: ×{ratio:.1f}, {met}; behind in {behind}."
            same = _peers(found, one.contender.agent)
            if same:
                behind = _list_behind(one, same, measures)
                yield f"  Against those that serve the same graph: behind in {behind}."


def _list_behind(one: Findings, peers: Sequence[Findings], measures: Sequence[Measure]) -> str:
    ratios = [(measure.what.removeprefix("– "), measure.ratio(one, peers)) for measure in measures]
    behind = [f"{what} (×{ratio:.2f})" for what, ratio in ratios if ratio and ratio < 1]
    return "; ".join(behind) or "no row"


def _describe_contenders(found: Sequence[Findings]) -> Iterator[str]:
    seen: set[str] = set()
    for one in found:
        package = one.contender.package
        if package not in seen:
            seen.add(package)
            versions = [f"{name} {one.versions[name]}" for name in SHOWN if name in one.versions]
            yield f"- {package}: {one.contender.settings} ({', '.join(versions)})"


def _describe_machine(load: tuple[float, float]) -> Iterator[str]:
    cores = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in cores if line.startswith("model name")]
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC,"
    yield f"{len(models)} × {models[0] if models else platform.machine()}, {system},"
    yield f"Python {PYTHON}, load average {load[0]:.1f} before and {load[1]:.1f} after."
