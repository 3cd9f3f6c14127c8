"""The tables and budgets of the identity layer."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.cases import Figures, Round
from benchmarks.identity import GOOD, UNKNOWN, WRONG, Answers, Identity
from benchmarks.logins import Logins

COST_COLUMNS = ("", "verified in process, µs", "request over HTTP, µs")
REFUSAL_COLUMNS = (
    *("", "CPU in process, µs (p99)"),
    *("CPU over HTTP, µs", "p99 ms", "with three issuers, µs", "p99 ms"),
)
LOGIN_COLUMNS = ("", "median, ms", "best", "worst")
KEY_COLUMNS = ("", "in process, µs", "over HTTP, µs")
GUARD_COLUMNS = ("", "CPU ms", "more than neither, ms")


def list_limits(figures: Figures) -> Iterator[tuple[str, float, float, str]]:
    """What, the most it may be, what it is, the unit."""
    identity = figures.identity
    costs = identity.costs
    cached = max(cost.alone or 0 for name, cost in costs.items() if name.endswith(", cached"))
    yield "verifying a token that is in the cache, CPU", 10, cached, "µs"
    for algorithm, limit in (("HS256", 60), ("RS256", 120), ("ES256", 200)):
        yield f"verifying {algorithm}, CPU", limit, costs[f"{algorithm}, fresh"].alone or 0, "µs"
    alone = max(refusal.alone.p99 for refusal in identity.refusals.values())
    request = max(refusal.request.p99 for refusal in identity.refusals.values())
    of_three = max(refusal.of_three.p99 for refusal in identity.refusals.values())
    yield "refusing the worst token up to 16 kB, p99, CPU in process", 5, alone * 1000, "ms"
    yield "the same, over HTTP", 5, request * 1000, "ms"
    yield "the same, with three issuers", 5, of_three * 1000, "ms"
    difference = _compare(identity.keys_request)
    yield "API keys, over HTTP: unknown id against wrong secret", 10, difference, "%"
    yield (
        "refused logins, over HTTP: slowest kind against fastest",
        5,
        figures.logins.difference,
        "%",
    )
    added = _list_added(figures.guards)
    for name, more in added.items():
        yield f"{name}, CPU added per turn", 0.1 if name == "rate limits" else 0.2, more, "ms"


def describe_costs(identity: Identity) -> Iterator[tuple[str, ...]]:
    for name, cost in identity.costs.items():
        yield name, "" if cost.alone is None else f"{cost.alone:.1f}", f"{cost.request:.0f}"


def describe_refusals(identity: Identity) -> Iterator[tuple[str, ...]]:
    for name, refusal in identity.refusals.items():
        yield (
            name,
            f"{refusal.alone.p50 * 1e6:.0f} ({refusal.alone.p99 * 1e6:.0f})",
            *_show(refusal.request),
            *_show(refusal.of_three),
        )


def describe_keys(identity: Identity) -> Iterator[tuple[str, ...]]:
    both = (identity.keys_alone, identity.keys_request)
    for name in (GOOD, WRONG, UNKNOWN):
        yield name, *(f"{times[name] * 1e6:.1f}" for times in both)
    yield "unknown id against wrong secret", *(f"{_compare(times):.1f} %" for times in both)


def describe_logins(logins: Logins) -> Iterator[tuple[str, ...]]:
    for name, times in logins.times.items():
        shown = (logins.medians[name], min(times), max(times))
        yield name, *(f"{seconds * 1000:.2f}" for seconds in shown)
    yield "slowest against fastest", f"{logins.difference:.1f} %", "", ""


def describe_guards(guards: Mapping[str, Sequence[Round]]) -> Iterator[tuple[str, ...]]:
    added = _list_added(guards)
    for name, rounds in guards.items():
        more = f"{added[name]:z.2f}" if name in added else ""
        yield name, f"{min(one.cpu for one in rounds):.2f}", more


def _list_added(guards: Mapping[str, Sequence[Round]]) -> dict[str, float]:
    cpu = {name: min(one.cpu for one in rounds) for name, rounds in guards.items()}
    base = cpu.pop("neither")
    return {name: spent - base for name, spent in cpu.items()}


def _compare(times: Mapping[str, float]) -> float:
    """By how many percent a stranger's guess of an id takes another time than a wrong secret."""
    return abs(times[UNKNOWN] / times[WRONG] - 1) * 100


def _show(answers: Answers) -> tuple[str, str]:
    return f"{answers.cpu * 1e6:.0f}", f"{answers.p99 * 1000:.1f}"
