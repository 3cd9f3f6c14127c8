"""What it costs to know a caller, and to refuse one: in process, and per request over HTTP."""

import asyncio
import gc
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth import ApiKeyAuth, JwtAuth, load_key
from agentflow_server.auth.api_key import make_api_key
from agentflow_server.auth.key_set import FixedKeys, KeySet
from agentflow_server.errors import NotAuthenticated
from agentflow_server.stores.sqlite import SqliteStore
from benchmarks.load import build_request, run_clients
from benchmarks.server import Cores, Server
from benchmarks.tokens import (
    Signer,
    key_environment,
    key_settings,
    make_bad_tokens,
    make_signers,
)

AGENT = "examples.echo.agent:app"
LONGEST_RUN = 30.0
UNLIMITED = "100000000/second"
"""A quota that counts and never stops anybody: a refused token must cost as much each time."""

ISSUERS = tuple(f"https://{name}.example" for name in ("one", "two", "three"))

GOOD, WRONG, UNKNOWN = "good key", "wrong secret", "unknown id"


@dataclass(frozen=True, slots=True)
class Amount:
    """How often in each of `rounds`: `calls` in process, `requests` over HTTP, `refusals` each."""

    rounds: int
    calls: int
    requests: int
    refusals: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU: of the verification alone, and of a whole request over HTTP."""

    alone: float | None
    request: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds, of the least disturbed of several rounds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, rounds: Sequence[Sequence[float]]) -> Self:
        spreads = [sorted(times) for times in rounds if times]
        return cls(
            p50=min(times[len(times) // 2] for times in spreads),
            p99=min(times[int(len(times) * 0.99)] for times in spreads),
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """Refusals over HTTP: CPU seconds of each, and what the slowest of a hundred took."""

    cpu: float
    p99: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bad token: CPU in process, over HTTP, and where the server has three issuers."""

    alone: Spread
    request: Answers
    of_three: Answers


@dataclass(frozen=True, slots=True)
class Identity:
    """`keys_alone` and `keys_request`: which key → the median time until the verdict, in seconds."""

    costs: Mapping[str, Cost]
    refusals: Mapping[str, Refusal]
    keys_alone: Mapping[str, float]
    keys_request: Mapping[str, float]


def measure_identity(amount: Amount, cores: Cores, say: Callable[[str], None]) -> Identity:
    signers = make_signers()
    bad = make_bad_tokens(signers)
    say("identity: in process")
    with _collector_of_the_server():
        alone = _time_tokens(signers, amount)
        refused = _time_refusals(signers, bad, amount)
        keys_alone, alone["API key"] = asyncio.run(_time_keys(amount))
    say("identity: over HTTP")
    with ExitStack() as stack:
        server = stack.enter_context(_open_server(cores, signers))
        keys = asyncio.run(_add_keys(server.database))
        nobody = stack.enter_context(Server(AGENT, cores=cores))
        three = stack.enter_context(_open_server(cores, signers, ISSUERS))
        requests = _measure_requests(server, nobody, signers, keys[GOOD], amount)
        refused_requests = _measure_refusals(server, bad, amount)
        refused_by_three = _measure_refusals(three, bad, amount)
        keys_request = _measure_keys(server, keys, amount)
    return Identity(
        costs={name: Cost(alone.get(name), cpu) for name, cpu in requests.items()},
        refusals={
            name: Refusal(refused[name], refused_requests[name], refused_by_three[name])
            for name in bad
        },
        keys_alone=keys_alone,
        keys_request=keys_request,
    )


@contextmanager
def _collector_of_the_server() -> Iterator[None]:
    """`agentflow serve` sets the garbage collector like this."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _open_jwt(signers: Sequence[Signer]) -> JwtAuth:
    keys = (load_key(one.public, one.algorithm, key_id=one.algorithm) for one in signers)
    return JwtAuth(FixedKeys(KeySet(keys)))


def _time_tokens(signers: Sequence[Signer], amount: Amount) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(amount.rounds):
        for signer in signers:
            fresh = [signer.sign() for _ in range(amount.calls)]
            auth = _open_jwt(signers)
            auth.verify(signer.sign())
            for what, tokens in (("fresh", fresh), ("cached", fresh)):
                begun = time.thread_time()
                for token in tokens:
                    auth.verify(token)
                taken = time.thread_time() - begun
                found[f"{signer.algorithm}, {what}"].append(taken / len(tokens) * 1e6)
    return {name: min(measured) for name, measured in found.items()}


def _time_refusals(
    signers: Sequence[Signer], bad: Mapping[str, str], amount: Amount
) -> dict[str, Spread]:
    auth = _open_jwt(signers)
    found: dict[str, list[list[float]]] = defaultdict(list)
    for _ in range(amount.rounds):
        for name, token in bad.items():
            found[name].append([_time_refusal(auth, token) for _ in range(amount.refusals)])
    return {name: Spread.of(rounds) for name, rounds in found.items()}


def _time_refusal(auth: JwtAuth, token: str) -> float:
    begun = time.thread_time()
    try:
        auth.verify(token)
    except NotAuthenticated:
        return time.thread_time() - begun
    raise RuntimeError("a bad token was accepted")


async def _time_keys(amount: Amount) -> tuple[dict[str, float], float]:
    """Medians of the time until the verdict, and the CPU of the good key's."""
    with tempfile.TemporaryDirectory(prefix="agentflow-") as folder:
        path = Path(folder) / "agentflow.db"
        async with SqliteStore(path) as store:
            keys = await _add_keys_to(store)
            auth = ApiKeyAuth(store)
            times: dict[str, list[float]] = defaultdict(list)
            for name in _mix(keys, amount.rounds * amount.calls):
                times[name].append(await _time_key(auth, keys[name]))
            cpu = [
                await _spend_on_key(auth, keys[GOOD], amount.calls) for _ in range(amount.rounds)
            ]
    return {name: statistics.median(measured) for name, measured in times.items()}, min(cpu)


async def _time_key(auth: ApiKeyAuth, key: str) -> float:
    begun = time.perf_counter()
    with suppress(NotAuthenticated):
        await _authenticate(auth, key)
    return time.perf_counter() - begun


async def _spend_on_key(auth: ApiKeyAuth, key: str, calls: int) -> float:
    begun = time.process_time()
    for _ in range(calls):
        await _authenticate(auth, key)
    return (time.process_time() - begun) / calls * 1e6


async def _authenticate(auth: ApiKeyAuth, key: str) -> None:
    credential = HTTPAuthorizationCredentials(scheme="Bearer", credentials=key)
    await auth.authenticate(HTTPConnection({"type": "http"}), Response(), credential)


async def _add_keys(database: Path) -> dict[str, str]:
    async with SqliteStore(database, exclusive=False) as store:
        return await _add_keys_to(store)


async def _add_keys_to(store: SqliteStore) -> dict[str, str]:
    """A key that is stored, one that is stored with another's secret, and one that is not."""
    now = datetime.now(UTC)
    (good, stored, secret), (wrong, twin, _), (unknown, _, other) = (
        make_api_key("alice", created_at=now) for _ in range(3)
    )
    await store.add_api_key(stored, secret)
    await store.add_api_key(twin, other)
    return {GOOD: good, WRONG: wrong, UNKNOWN: unknown}


def _open_server(
    cores: Cores, signers: Sequence[Signer], issuers: Sequence[str | None] = (None,)
) -> Server:
    jwt = {"method": "jwt", "keys": key_settings(signers)}
    methods = [jwt if issuer is None else {**jwt, "issuer": issuer} for issuer in issuers]
    return Server(
        AGENT,
        cores=cores,
        settings={"auth": [*methods, "api_key"], "rate_limit": {"failed_auth": UNLIMITED}},
        variables=key_environment(signers),
    )


def _ask(token: str | None) -> bytes:
    """The cheapest request that there is behind the door."""
    return build_request("GET", "/agents", None, token)


def _measure_requests(
    server: Server, nobody: Server, signers: Sequence[Signer], key: str, amount: Amount
) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(amount.rounds):
        found["no authentication"].append(_spend(nobody, [_ask(None)] * amount.requests))
        found["API key"].append(_spend(server, [_ask(key)] * amount.requests))
        for signer in signers:
            fresh = [_ask(signer.sign()) for _ in range(amount.requests)]
            found[f"{signer.algorithm}, fresh"].append(_spend(server, fresh))
            cached = [fresh[0]] * amount.requests
            found[f"{signer.algorithm}, cached"].append(_spend(server, cached))
    return {name: min(measured) for name, measured in found.items()}


def _spend(server: Server, plan: Sequence[bytes]) -> float:
    """Microseconds of CPU per request."""
    before = server.cpu_seconds()
    answered = len(run_clients(server.port, [plan], LONGEST_RUN).latencies)
    return (server.cpu_seconds() - before) / answered * 1e6


def _measure_refusals(server: Server, bad: Mapping[str, str], amount: Amount) -> dict[str, Answers]:
    cpu: dict[str, list[float]] = defaultdict(list)
    times: dict[str, list[list[float]]] = defaultdict(list)
    for _ in range(amount.rounds):
        for name, token in bad.items():
            plan = [_ask(token)] * amount.refusals
            before = server.cpu_seconds()
            answered = run_clients(server.port, [plan], LONGEST_RUN, expected=(401,))
            cpu[name].append((server.cpu_seconds() - before) / len(plan))
            times[name].append(answered.latencies)
    return {name: Answers(min(cpu[name]), Spread.of(times[name]).p99) for name in bad}


def _measure_keys(server: Server, keys: Mapping[str, str], amount: Amount) -> dict[str, float]:
    order = _mix(keys, amount.rounds * amount.requests)
    plan = [_ask(keys[name]) for name in order]
    latencies = run_clients(server.port, [plan], LONGEST_RUN, expected=(200, 401)).latencies
    found: dict[str, list[float]] = defaultdict(list)
    for name, latency in zip(order, latencies, strict=True):
        found[name].append(latency)
    return {name: statistics.median(measured) for name, measured in found.items()}


def _mix(names: Iterable[str], times: int) -> list[str]:
    """Each name so many times, in no order: none must always follow the same other one."""
    order = [name for name in names for _ in range(times)]
    random.Random(0).shuffle(order)
    return order
