"""Every process is replaced, one after the other, while clients go on behind a load balancer."""

import asyncio
import signal
import socket

import httpx2
import pytest

from tests.distributed import talking
from tests.distributed.balancer import CHECK_SECONDS, Balancer
from tests.distributed.load import Load
from tests.distributed.site import DEADLINE, make_token

CLIENTS = 6
DELAY = 8 * CHECK_SECONDS
"""Seconds in which the balancer is sure to notice."""


def find_free_ports(count):
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in listening]
    for one in listening:
        one.close()
    return ports


async def begin(load, clients):
    return [asyncio.create_task(load.converse(number)) for number in range(clients)]


async def take_more_turns(load, count):
    """Returns when the clients have got so much further."""
    wanted = load.turns + count
    async with asyncio.timeout(DEADLINE):
        while load.turns < wanted and not load.failures:
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("executes", ["the servers", "workers"])
async def test_nobody_notices_a_rolling_restart(make_site, executes):
    site = make_site(runs={"shutdown_grace": 20})
    options = ["--shutdown-delay", str(DELAY)]
    if executes == "workers":
        options.append("--no-worker")
    ports = find_free_ports(2)
    starting = [site.begin_to_serve(*options, "--port", str(port)) for port in ports]
    workers = [site.begin_to_work() for _ in range(2 if executes == "workers" else 0)]
    replicas = [await asyncio.to_thread(replica.answer) for replica in starting]
    for worker in workers:
        await asyncio.to_thread(worker.wait_for, "executing runs")
    headers = {"Authorization": f"Bearer {make_token('alice')}"}
    async with (
        Balancer([replica.url for replica in replicas]) as balancer,
        httpx2.AsyncClient(base_url=balancer.url, headers=headers, timeout=DEADLINE) as http,
    ):
        load = Load(http)
        working = await begin(load, CLIENTS)
        for replica, port in zip(replicas, ports, strict=True):
            await take_more_turns(load, 8)
            assert await asyncio.to_thread(replica.stop) == 0
            site.begin_to_serve(*options, "--port", str(port))
            await balancer.wait_until(replica.url, ready=True)
        for worker in workers:
            await take_more_turns(load, 8)
            await asyncio.to_thread(site.work)
            assert await asyncio.to_thread(worker.stop) == 0
        await take_more_turns(load, 8)
        load.stopping = True
        await asyncio.gather(*working)
        assert load.failures == []
        await load.check_histories()
        assert min(balancer.counts.values()) > 10, "one of them had nothing to do"
    site.check_logs()


async def test_a_server_that_stops_answers_whoever_waits_for_a_turn_of_others(make_site, gate):
    site = make_site()
    replica, worker = site.begin_to_serve("--no-worker"), site.begin_to_work()
    await asyncio.to_thread(replica.answer)
    async with replica.client() as http:
        threads = [await talking.new_thread(http) for _ in range(2)]
        waiting = asyncio.create_task(talking.send(http, threads[0], "wait"))
        held = await gate.wait()
        async with talking.streaming(http, threads[1], "wait") as events:
            first = [await anext(events), await anext(events)]
            other = await gate.wait()
            replica.send(signal.SIGTERM)
            await asyncio.to_thread(replica.wait_for, "stopping; running requests may finish")
            for each in (held, other):
                each.let_go()
            rest = [event async for event in events]
        assert (await waiting)["message"]["content"] == "begun ended"
        talking.check_numbers(first + rest)
        assert rest[-1][1] == "run.completed"
    assert await asyncio.to_thread(replica.wait) == 0
    assert worker.stop() == 0


async def test_a_server_that_stops_does_not_wait_for_ever(make_site, gate):
    """The turn goes on elsewhere; whoever waits for it is told to come back."""
    site = make_site(runs={"shutdown_grace": 0.2})
    replica, other = site.begin_to_serve("--no-worker"), site.begin_to_serve("--no-worker")
    await asyncio.to_thread(site.work)
    await asyncio.to_thread(replica.answer)
    await asyncio.to_thread(other.answer)
    async with replica.client() as here, other.client() as there:
        thread_id = await talking.new_thread(here)
        url = f"/threads/{thread_id}/messages"
        waiting = asyncio.create_task(here.post(url, json={"content": "wait"}))
        held = await gate.wait()
        assert await asyncio.to_thread(replica.stop) == 0
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (503, "server_stopping")
        (run,) = (await there.get(f"/threads/{thread_id}/runs")).json()["data"]
        assert run["status"] == "running"
        held.let_go()
        assert (await talking.ended(there, thread_id, run["run_id"]))["status"] == "success"


BLOCKS = '''
import time
from pathlib import Path

def note(word, content):
    with Path("notes").open("a") as notes:
        notes.write(f"{word} {content}\\n")

def app(messages, config):
    """Nobody can cancel it: it runs in a thread."""
    content = messages[-1]["content"]
    note("begins", content)
    if content == "one":
        time.sleep(1.5)
    note("ends", content)
    return content
'''


async def test_what_cannot_be_cancelled_has_ended_before_its_thread_goes_on_elsewhere(make_site):
    site = make_site(agent="blocking:app", runs={"shutdown_grace": 0.1})
    (site.folder / "blocking.py").write_text(BLOCKS, encoding="utf-8")
    notes = site.folder / "notes"
    starting = [site.begin_to_serve() for _ in range(2)]
    one, other = [await asyncio.to_thread(each.answer) for each in starting]
    async with one.client() as here, other.client() as there:
        thread_id = await talking.new_thread(here)
        runs = [await talking.start(here, thread_id, text) for text in ("one", "two")]
        async with asyncio.timeout(DEADLINE):
            while not notes.exists():
                await asyncio.sleep(0.02)
        assert await asyncio.to_thread(one.stop) == 0
        assert (await talking.ended(there, thread_id, runs[1]))["status"] == "success"
        assert (await talking.get_run(there, thread_id, runs[0]))["status"] == "error"
    assert notes.read_text().splitlines() == ["begins one", "ends one", "begins two", "ends two"]
