"""Two servers and a worker, of which some are killed again and again, while the others go on."""

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from tests.chaos.chaos import SETTLE_EVERY, SETTLING, Chaos
from tests.chaos.clients import Door
from tests.chaos.invariants import ALWAYS, what_has_ended_stays_as_it_was
from tests.chaos.server import Launcher, configure, make_project
from tests.chaos.snapshot import Snapshot, build

COMMANDS = (("serve", "--port", "0"), ("serve", "--port", "0"), ("worker",))
LEASE = 3.0
"""Long enough that nobody is taken for dead whom a busy machine keeps waiting."""
_LONG_AGO = "UPDATE agentflow.threads SET updated_at = updated_at - 3600000000 WHERE hidden"


@dataclass
class Member:
    """A process of the fleet, now and later."""

    launcher: Launcher
    door: Door
    serves: bool
    url: str = ""

    async def start(self, how: str = "fork") -> None:
        await self.launcher.launch(how)
        if self.serves:
            self.url = await self.launcher.answer()
            self.door.open(self.url)

    def leave(self) -> None:
        """Nobody is sent there any more."""
        self.door.shut(self.url)


class FleetChaos(Chaos):
    # Of a run that is marked while its server lives, the agent may be done before it hears of it.
    unchanged = (what_has_ended_stays_as_it_was,)

    def __init__(self, folder: Path, seed: int, database: str) -> None:
        super().__init__(folder, seed)
        self._database = database
        self._members: list[Member] = []

    async def run(self, kills: int) -> None:
        make_project(self._folder)
        self._configure()
        async with AsyncExitStack() as stack:
            for command in COMMANDS:
                launcher = await stack.enter_async_context(Launcher(self._folder, *command))
                self._members.append(Member(launcher, self._door, "serve" in command))
            await asyncio.gather(*(member.start("exec") for member in self._members))
            while self._round < kills:
                until = min(self._round + SETTLE_EVERY, kills)
                clients = self._make_clients()
                working = [asyncio.create_task(client.work()) for client in clients]
                try:
                    while self._round < until:
                        await self._live_and_let_die()
                    await self._finish(clients, working)
                finally:
                    for task in working:
                        task.cancel()
                await self._purge()
                await self._come_to_an_end()

    def _configure(self) -> None:
        """For those that are started from now on: they need not agree with the others."""
        random = self._random
        configure(
            self._folder,
            self._database,
            lease=LEASE,
            on_crash=random.choice(["fail", "retry"]),
            concurrency=random.choice([None, None, 4]),
            per_principal=random.choice([None, None, 2]),
            max_attempts=random.choice([2, 3, 5]),
        )

    async def _live_and_let_die(self) -> None:
        random = self._random
        await asyncio.sleep(random.uniform(0.05, 1.0))
        if random.random() < 0.4:  # in the middle of what does not happen all the time
            await self._door.wait_for(random.choice(["delete", "cancel", "answer"]), seconds=0.5)
            await asyncio.sleep(random.uniform(0, 0.015))
        victims = random.sample(self._members, random.choices([1, 2, 3], [7, 2, 1])[0])
        self._round += len(victims)
        await asyncio.gather(*(self._end(victim) for victim in victims))
        self._look(ALWAYS, self._see())
        self._configure()
        await asyncio.sleep(random.uniform(0, 0.5))
        for victim in victims:
            if random.random() < 0.15:
                self._journal.count("died while it started")
                await victim.launcher.launch()
                await asyncio.sleep(random.uniform(0, 0.6))
                await victim.launcher.kill()
        await asyncio.gather(*(victim.start() for victim in victims))

    async def _end(self, member: Member) -> None:
        random, launcher = self._random, member.launcher
        how = random.choices(["kill", "terminate", "terminate and kill", "freeze"], [7, 2, 1, 2])[0]
        self._journal.count(how)
        match how:
            case "terminate":
                launcher.send(signal.SIGTERM)
                await launcher.wait()
            case "terminate and kill":
                launcher.send(signal.SIGTERM)
                await asyncio.sleep(random.uniform(0, 0.6))
                await launcher.kill()
            case "freeze":
                launcher.send(signal.SIGSTOP)
                await asyncio.sleep(random.uniform(0, 0.5))
                if random.random() < 0.5:
                    launcher.send(signal.SIGCONT)
                    await asyncio.sleep(random.uniform(0, 0.5))
                await launcher.kill()
            case _:
                await launcher.kill()
        member.leave()

    async def _purge(self) -> None:
        """What was being deleted or copied is deleted when nothing was heard of it for long."""
        with psycopg.connect(self._database) as connection:
            connection.execute(_LONG_AGO)
        one = self._members[0]
        one.leave()
        one.launcher.send(signal.SIGTERM)
        await one.launcher.wait()
        await one.start()
        async with asyncio.timeout(SETTLING):
            while any(thread["hidden"] for thread in self._see().threads.values()):
                await asyncio.sleep(0.1)

    def _see(self) -> Snapshot:
        """All of it at one moment, while the others go on."""
        with psycopg.connect(self._database, row_factory=dict_row) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SET search_path = agentflow")
            return build(
                lambda sql: connection.execute(sql.encode()).fetchall(),
                self._folder / "trace.log",
                [],
                of_graphs=("checkpoints", "checkpoint_writes", "checkpoint_blobs"),
            )
