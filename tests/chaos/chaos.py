"""Kills a server under load, again and again, and looks at what is left each time."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import jwt

from tests.chaos.clients import PATIENCE, Client, Door, User
from tests.chaos.invariants import ALWAYS, SETTLED, UNCHANGED
from tests.chaos.journal import Journal
from tests.chaos.server import SECRET, Launcher, configure, make_project
from tests.chaos.snapshot import Snapshot, look_at_the_dead, look_at_the_living

OWNERS = ("alice", "bob", "carol")
CLIENTS_OF_EACH = 2
SETTLING = 60.0
"""Seconds in which a server has to finish what it found."""
SETTLE_EVERY = 25

Invariant = Callable[[Journal, Snapshot], Iterable[str]]


class Chaos:
    unchanged = UNCHANGED

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._random = Random(seed)
        self._journal = Journal()
        self._door = Door()
        self._users = [User(owner, _token(owner), self._journal) for owner in OWNERS]
        self._round = 0
        self._before: Snapshot | None = None
        self._url = ""
        self.counts = self._journal.counts

    async def run(self, kills: int) -> None:
        make_project(self._folder)
        async with Launcher(self._folder) as server:
            while self._round < kills:
                until = min(self._round + SETTLE_EVERY, kills)
                clients = self._make_clients()
                working = [asyncio.create_task(client.work()) for client in clients]
                try:
                    while self._round < until:
                        self._round += 1
                        await self._live_and_die(server)
                        self._look(ALWAYS, look_at_the_dead(self._folder))
                    await self._start(server)
                    await self._finish(clients, working)
                finally:
                    for task in working:
                        task.cancel()
                await self._settle(server)

    def _make_clients(self) -> list[Client]:
        return [
            Client(
                f"{user.owner}{n}.{self._round}",
                user,
                self._door,
                Random(f"{self._seed}.{self._round}.{user.owner}.{n}"),
            )
            for user in self._users
            for n in range(CLIENTS_OF_EACH)
        ]

    async def _start(self, server: Launcher) -> None:
        await self._launch(server)
        self._url = await server.answer()
        self._door.open(self._url)

    async def _launch(self, server: Launcher) -> None:
        random = self._random
        configure(
            self._folder,
            on_crash=random.choice(["fail", "retry"]),
            concurrency=random.choice([None, None, 4]),
            per_principal=random.choice([None, None, 2]),
            max_attempts=random.choice([2, 3, 5]),
        )
        await server.launch("exec" if self._round == 1 else "fork")

    async def _live_and_die(self, server: Launcher) -> None:
        random = self._random
        if random.random() < 0.15:
            await self._launch(server)
            await asyncio.sleep(random.uniform(0, 0.6))
            self._journal.count("died while it started")
            await server.kill()
            return
        await self._start(server)
        await asyncio.sleep(random.uniform(0.02, 1.0))
        if random.random() < 0.4:  # in the middle of what does not happen all the time
            await self._door.wait_for(random.choice(["delete", "cancel", "answer"]), seconds=0.5)
            await asyncio.sleep(random.uniform(0, 0.015))
        how = random.choices(["kill", "terminate", "terminate and kill", "freeze"], [7, 1, 1, 1])[0]
        self._journal.count(how)
        match how:
            case "terminate":
                server.send(signal.SIGTERM)
                await server.wait()
            case "terminate and kill":
                server.send(signal.SIGTERM)
                await asyncio.sleep(random.uniform(0, 0.6))
                await server.kill()
            case "freeze":
                server.send(signal.SIGSTOP)
                await asyncio.sleep(random.uniform(0, 0.3))
                await server.kill()
            case _:
                await server.kill()
        self._door.shut(self._url)

    async def _finish(self, clients: list[Client], working: list[asyncio.Task[None]]) -> None:
        for client in clients:
            client.stop()
        async with asyncio.timeout(2 * PATIENCE):
            await asyncio.gather(*working)

    async def _settle(self, server: Launcher) -> None:
        await self._come_to_an_end()
        self._door.shut(self._url)
        await server.kill()

    def _see(self) -> Snapshot:
        return look_at_the_living(self._folder)

    async def _come_to_an_end(self) -> None:
        """Everything comes to its end, and then every question can still be answered."""
        await self._wait_until_idle()
        self._look(SETTLED, self._see())
        clients = self._make_clients()[::CLIENTS_OF_EACH]
        await asyncio.gather(*(client.answer_all() for client in clients))
        await self._wait_until_idle()
        self._look(SETTLED, self._see())
        clients = self._make_clients()[::CLIENTS_OF_EACH]
        problems = [
            problem for client in clients for problem in await client.compare_states(self._before)
        ]
        self._report({"checkpoints_agree_with_the_history": problems})

    async def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + SETTLING
        while time.monotonic() < deadline:
            statuses = {run["status"] for run in self._see().runs.values()}
            if not statuses & {"pending", "running"}:
                return
            await asyncio.sleep(0.1)

    def _look(self, invariants: Iterable[Invariant], now: Snapshot) -> None:
        found = {each.__name__: list(each(self._journal, now)) for each in invariants}
        if self._before is not None:
            for each in self.unchanged:
                found[each.__name__] = list(each(self._journal, self._before, now))
        found["no_answer_is_undocumented"] = self._journal.oddities
        self._before = now
        self._report(found)

    def _report(self, found: dict[str, list[str]]) -> None:
        lines = [
            f"  {name}: {problem}" for name, several in found.items() for problem in several[:5]
        ]
        assert not lines, "\n".join([f"seed {self._seed}, after kill {self._round}:", *lines])


def _token(owner: str) -> str:
    return jwt.encode({"sub": owner, "exp": int(time.time()) + 86400}, SECRET, algorithm="HS256")
