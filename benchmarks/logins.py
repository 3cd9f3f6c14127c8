"""Whether the time of a refused login tells anything of its user, over HTTP."""

import asyncio
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from agentflow_server.models import User, UserChange, UserSecrets
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.users import open_passwords
from agentflow_server.users.making import make_user
from benchmarks.identity import AGENT, UNLIMITED
from benchmarks.load import HOST, run_clients
from benchmarks.server import Cores, Server

LONGEST_RUN = 60.0
WRONG, UNKNOWN, DISABLED = "wrong password", "unknown user", "disabled user"
EACH = 5
"""Attempts at one account: with more, its own limit would answer."""

_PASSWORD = "tea kettle sings at noon"


@dataclass(frozen=True, slots=True)
class Logins:
    """Seconds until a login was refused, in the order of the attempts."""

    times: Mapping[str, Sequence[float]]

    @property
    def medians(self) -> Mapping[str, float]:
        return {name: statistics.median(times) for name, times in self.times.items()}

    @property
    def difference(self) -> float:
        """Percent that the slowest kind takes more than the fastest, by their medians."""
        return (max(self.medians.values()) / min(self.medians.values()) - 1) * 100


def measure_logins(attempts: int, cores: Cores, say: Callable[[str], None]) -> Logins:
    """So many of each kind, in no order: none must always follow the same other one."""
    say("logins: refused")
    settings = {
        "auth": ["api_key"],
        "token_server": {"password_grant": True},
        "rate_limit": {"failed_auth": UNLIMITED},
    }
    with Server(AGENT, cores=cores, settings=settings) as server:
        # Names of one length: they differ in nothing that is sent.
        names = {
            kind: [f"{kind[:2]}{number:06}" for number in range(attempts // EACH)]
            for kind in (WRONG, UNKNOWN, DISABLED)
        }
        asyncio.run(_add_users(server.database, names))
        order = [(kind, name) for kind in names for name in names[kind] * EACH]
        random.Random(0).shuffle(order)
        warm = [_try(f"warm{number:04}", "wrong") for number in range(20)]
        plan = [_try(name, _PASSWORD if kind == DISABLED else "x" * 24) for kind, name in order]
        answers = run_clients(server.port, [warm + plan], LONGEST_RUN, expected=(400,))
    found: dict[str, list[float]] = defaultdict(list)
    for (kind, _), seconds in zip(order, answers.latencies[len(warm) :], strict=True):
        found[kind].append(seconds)
    if len(set(answers.bodies)) > 1:
        raise RuntimeError("the answers tell why a login was refused")
    return Logins(found)


async def _add_users(database: Path, names: Mapping[str, Sequence[str]]) -> None:
    """All but the unknown ones, with one hash: making each would take the longest."""
    hash_ = await open_passwords().hash(_PASSWORD)
    async with SqliteStore(database, exclusive=False) as store:
        for kind in (WRONG, DISABLED):
            users = [_make_user(name) for name in names[kind]]
            await store.add_users([(user, UserSecrets(hash_)) for user in users])
            if kind == DISABLED:
                for user in users:
                    await store.update_user(user.user_id, UserChange(disabled=True))


def _make_user(username: str) -> User:
    return make_user(username, created_at=datetime.now(UTC), has_password=True)


def _try(username: str, password: str) -> bytes:
    fields = {"grant_type": "password", "username": username, "password": password}
    content = urlencode(fields).encode()
    lines = [
        "POST /token HTTP/1.1",
        f"Host: {HOST}",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content
