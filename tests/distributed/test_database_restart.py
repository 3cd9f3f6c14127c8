"""PostgreSQL goes away and comes back while clients go on."""

import asyncio
import signal
import time
from collections import Counter
from uuid import uuid4

import pytest

from tests.distributed import talking
from tests.distributed.site import DEADLINE

pytestmark = pytest.mark.slow

CLIENTS = 8
ENDINGS = {"success", "error"}
REASONS = {"store_unavailable", "server_restarted"}


class Past:
    """What clients were told."""

    def __init__(self):
        self.sent = {}  # content → (thread_id, run_id) of those that were acknowledged
        self.maybe = set()
        self.answers = Counter()
        self.oddities = []
        self.stopping = False


async def send_on_and_on(http, thread_id, past):
    while not past.stopping:
        content = f"sleep 0.02 {uuid4()}"
        past.maybe.add(content)
        body = {"content": content, "background": True}
        answer = await http.post(f"/threads/{thread_id}/messages", json=body)
        past.answers[answer.status_code] += 1
        if answer.status_code == 202:
            past.sent[content] = (thread_id, answer.json()["run_id"])
        elif answer.status_code == 503:
            check_refusal(answer, past)
            await asyncio.sleep(0.05)
        else:
            past.oddities.append(f"{answer.status_code} {answer.text}")


def check_refusal(answer, past):
    found = answer.json()
    expected = {
        "type": "urn:agentflow:store_unavailable",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The database cannot be used right now",
        "code": "store_unavailable",
    }
    media_type = answer.headers["content-type"]
    if found != expected or media_type != "application/problem+json":
        past.oddities.append(answer.text)
    if "retry-after" not in answer.headers:
        past.oddities.append("no Retry-After")


async def readiness_is(http, status):
    async with asyncio.timeout(DEADLINE):
        while (await http.get("/health/ready")).status_code != status:
            await asyncio.sleep(0.05)


async def test_a_restart_of_the_database_loses_nothing_and_heals_by_itself(
    make_site, own_postgres_server
):
    with own_postgres_server.new_database() as url:
        site = make_site(database=url, runs={"lease": 3, "on_crash": "retry"})
        starting = [site.begin_to_serve(), site.begin_to_serve("--no-worker")]
        worker = site.begin_to_work()
        replicas = [await asyncio.to_thread(each.answer) for each in starting]
        await asyncio.to_thread(worker.wait_for, "executing runs")
        past = Past()
        async with replicas[0].client() as one, replicas[1].client() as other:
            threads = [await talking.new_thread(one) for _ in range(CLIENTS)]
            clients = [
                asyncio.create_task(send_on_and_on((one, other)[n % 2], thread_id, past))
                for n, thread_id in enumerate(threads)
            ]
            for how in (signal.SIGINT, signal.SIGQUIT):
                await enough(past, 202, 30)
                await asyncio.to_thread(own_postgres_server.stop, how)
                seen = (readiness_is(http, 503) for http in (one, other))
                await asyncio.gather(enough(past, 503, 4), *seen)
                assert (await one.get("/health/live")).status_code == 200
                began = time.monotonic()
                await asyncio.to_thread(own_postgres_server.start)
                await asyncio.gather(*(readiness_is(http, 200) for http in (one, other)))
                print(f"ready again after {time.monotonic() - began:.1f} s")
            await enough(past, 202, 30)
            past.stopping = True
            await asyncio.gather(*clients)
            assert past.oddities == []
            await settled(one, threads)
            runs = {
                run["run_id"]: run for thread in threads for run in await list_runs(one, thread)
            }
            statuses = Counter(run["status"] for run in runs.values())
            for thread_id, run_id in past.sent.values():
                if runs[run_id]["status"] == "error":
                    assert runs[run_id]["error"]["code"] in REASONS
                    events = await talking.read_events(other, thread_id, run_id)
                    talking.check_numbers(events)
                    assert events[-1][1] == "run.failed"
            await check_histories(one, threads, past)
            assert statuses["success"] > 60, statuses
            print(dict(past.answers), dict(statuses))
        assert [each.stop() for each in (*replicas, worker)] == [0, 0, 0]


async def enough(past, status, count):
    wanted = past.answers[status] + count
    async with asyncio.timeout(DEADLINE):
        while past.answers[status] < wanted:
            await asyncio.sleep(0.02)


async def check_histories(http, threads, past):
    """Each acknowledged message once, in its order; at most one answer to each."""
    for thread_id in threads:
        found = await whole_history(http, thread_id)
        asked = [content for content in found if not content.startswith("echo ")]
        acknowledged = [content for content, (where, _) in past.sent.items() if where == thread_id]
        assert [content for content in asked if content in past.sent] == acknowledged
        assert set(asked) <= past.maybe
        assert max(Counter(found).values()) == 1


async def whole_history(http, thread_id):
    return [each["content"] for each in await read_pages(http, f"/threads/{thread_id}/messages")]


async def list_runs(http, thread_id):
    return await read_pages(http, f"/threads/{thread_id}/runs")


async def read_pages(http, url):
    found, cursor = [], None
    while True:
        parameters = {"limit": 100} if cursor is None else {"limit": 100, "cursor": cursor}
        page = (await http.get(url, params=parameters)).json()
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def settled(http, threads):
    """Returns when no run is left that has not ended."""
    for thread_id in threads:
        async with asyncio.timeout(DEADLINE):
            while {run["status"] for run in await list_runs(http, thread_id)} - ENDINGS:
                await asyncio.sleep(0.1)


async def test_whoever_reads_or_waits_is_answered_when_the_database_is_back(
    make_site, own_postgres_server, gate
):
    """Longer than a reader's question to the database takes to fail."""
    with own_postgres_server.new_database() as url:
        site = make_site(database=url, runs={"lease": 30})
        starting = [site.begin_to_serve(), site.begin_to_serve("--no-worker")]
        replicas = [await asyncio.to_thread(each.answer) for each in starting]
        async with replicas[0].client() as one, replicas[1].client() as other:
            threads = [await talking.new_thread(one) for _ in range(2)]
            run_id = await talking.start(one, threads[0], "wait")
            here, there = (
                asyncio.create_task(talking.read_events(http, threads[0], run_id))
                for http in (one, other)
            )
            waiting = asyncio.create_task(talking.send(one, threads[1], "wait"))
            held = [await gate.wait(), await gate.wait()]
            await talking.read_events_until(other, threads[0], run_id, "message.delta")
            await asyncio.to_thread(own_postgres_server.stop)
            await asyncio.to_thread(replicas[1].wait_for, "the database refused an operation")
            await asyncio.to_thread(own_postgres_server.start)
            await asyncio.gather(*(readiness_is(http, 200) for http in (one, other)))
            for each in held:
                each.let_go()
            assert (await waiting)["message"]["content"] == "begun ended"
            events = await here
            assert talking.text_of(events) == "begun ended"
            talking.check_numbers(events)
            assert await there == events
