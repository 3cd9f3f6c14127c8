"""A process is killed or paused in the middle of a turn, and the others see to it."""

import asyncio
import signal

import pytest

from tests.distributed import talking

LEASE = 2.0


@pytest.fixture
async def two(make_site):
    """`two(runs={…})`: a site and two servers, each of which also executes turns."""

    async def two(**runs):
        site = make_site(runs={"lease": LEASE, **runs})
        starting = [site.begin_to_serve() for _ in range(2)]
        return [await asyncio.to_thread(replica.answer) for replica in starting]

    return two


async def test_the_run_of_a_killed_server_is_begun_again_by_another_one(two, gate):
    one, other = await two(on_crash="retry")
    async with one.client() as here, other.client() as there:
        thread_id = await talking.new_thread(here)
        runs = [await talking.start(here, thread_id, text) for text in ("wait", "two", "three")]
        assert (await gate.wait()).pid == one.pid
        before = await talking.read_events_until(there, thread_id, runs[0], "message.delta")
        one.kill()
        held = await gate.wait()
        assert (held.pid, held.content) == (other.pid, "wait")
        run = await talking.get_run(there, thread_id, runs[0])
        assert (run["status"], run["attempt"]) == ("running", 2)
        last = asyncio.create_task(talking.ended(there, thread_id, runs[2]))
        held.let_go()
        assert (await last)["attempt"] == 1
        expected = ["wait", "begun ended", "two", "echo two", "three", "echo three"]
        assert await talking.history(there, thread_id) == expected
        events = await talking.read_events(there, thread_id, runs[0])
        talking.check_numbers(events)
        assert events[: len(before)] == before
        assert events[-1][1] == "run.completed"
    assert gate.is_empty
    assert other.stop() == 0


async def test_the_run_of_a_killed_server_fails_where_it_must_not_be_repeated(two, gate):
    one, other = await two(on_crash="fail")
    async with one.client() as here, other.client() as there:
        thread_id = await talking.new_thread(here)
        runs = [await talking.start(here, thread_id, text) for text in ("wait", "two")]
        assert (await gate.wait()).pid == one.pid
        waiting = asyncio.create_task(talking.read_events(there, thread_id, runs[0]))
        one.kill()
        events = await waiting
        talking.check_numbers(events)
        assert events[-1][1] == "run.failed"
        assert events[-1][2]["error"]["code"] == "server_restarted"
        run = await talking.get_run(there, thread_id, runs[0])
        assert (run["status"], run["attempt"]) == ("error", 1)
        assert run["error"]["code"] == "server_restarted"
        assert (await talking.ended(there, thread_id, runs[1]))["status"] == "success"
        assert await talking.history(there, thread_id) == ["wait", "two", "echo two"]
    assert gate.is_empty
    assert other.stop() == 0


async def test_a_run_is_not_begun_more_often_than_allowed(make_site, gate):
    site = make_site(runs={"lease": LEASE, "on_crash": "retry", "max_attempts": 2})
    starting = [site.begin_to_serve("--no-worker"), site.begin_to_work(), site.begin_to_work()]
    replica = await asyncio.to_thread(starting[0].answer)
    workers = {worker.pid: worker for worker in starting[1:]}
    async with replica.client() as http:
        thread_id = await talking.new_thread(http)
        runs = [await talking.start(http, thread_id, text) for text in ("wait", "two")]
        for _ in range(2):
            workers.pop((await gate.wait()).pid).kill()
        await asyncio.to_thread(site.work)
        run = await talking.ended(http, thread_id, runs[0])
        assert (run["status"], run["error"]["code"]) == ("error", "server_restarted")
        assert (await talking.ended(http, thread_id, runs[1]))["status"] == "success"
    assert gate.is_empty


async def test_a_run_goes_on_at_the_worker_when_its_server_is_killed(make_site, gate):
    site = make_site(runs={"lease": LEASE})
    starting = [site.begin_to_serve("--no-worker"), site.begin_to_serve("--no-worker")]
    await asyncio.to_thread(site.work)
    one, other = [await asyncio.to_thread(replica.answer) for replica in starting]
    async with one.client() as here, other.client() as there:
        thread_id = await talking.new_thread(here)
        run_id = await talking.start(here, thread_id, "wait")
        held = await gate.wait()
        one.kill()
        held.let_go()
        run = await talking.ended(there, thread_id, run_id)
        assert (run["status"], run["attempt"]) == ("success", 1)


async def test_a_server_that_was_paused_for_too_long_changes_nothing(two, gate):
    one, other = await two(on_crash="retry")
    async with one.client() as here, other.client() as there:
        thread_id = await talking.new_thread(here)
        run_id = await talking.start(here, thread_id, "wait")
        paused = await gate.wait()
        assert paused.pid == one.pid
        one.send(signal.SIGSTOP)
        again = await gate.wait()
        assert again.pid == other.pid
        again.let_go()
        run = await talking.ended(there, thread_id, run_id)
        assert (run["status"], run["attempt"]) == ("success", 2)
        events = await talking.read_events(there, thread_id, run_id)

        following = await talking.start(there, thread_id, "wait again")
        held = await gate.wait()
        assert held.pid == other.pid
        paused.let_go()
        one.send(signal.SIGCONT)
        await asyncio.to_thread(one.wait_for, f"run {run_id} was ended elsewhere")
        assert await talking.read_events(here, thread_id, run_id) == events
        assert await talking.get_run(here, thread_id, run_id) == run
        now = await talking.get_run(here, thread_id, following)
        assert (now["status"], now["attempt"]) == ("running", 1)
        held.let_go()
        assert (await talking.ended(here, thread_id, following))["status"] == "success"
        expected = ["wait", "begun ended", "wait again", "begun ended"]
        assert await talking.history(here, thread_id) == expected
        # From now on it is a server like any other.
        new = await talking.new_thread(here)
        assert (await talking.send(here, new, "who"))["message"]["content"] == str(one.pid)
    assert gate.is_empty
    assert [one.stop(), other.stop()] == [0, 0]


async def test_what_a_killed_server_had_acknowledged_is_done_by_another_one(two, gate):
    """A hundred messages on twenty threads, half of them to each; one of both dies at work."""
    one, other = await two(on_crash="retry", concurrency=4)
    async with one.client() as here, other.client() as there:
        threads = [await talking.new_thread(here) for _ in range(20)]
        blocker = await talking.new_thread(here)
        await talking.start(here, blocker, "wait")
        assert (await gate.wait()).pid in {one.pid, other.pid}
        runs = []
        for number in range(5):
            sent = [
                talking.start((here, there)[n % 2], thread_id, f"message {number}")
                for n, thread_id in enumerate(threads)
            ]
            runs.append(await asyncio.gather(*sent))
        one.kill()
        for n, thread_id in enumerate(threads):
            assert (await talking.ended(there, thread_id, runs[-1][n]))["status"] == "success"
            expected = [text for k in range(5) for text in (f"message {k}", f"echo message {k}")]
            assert await talking.history(there, thread_id) == expected


async def test_whoever_waits_hears_only_what_is_kept_of_a_run_that_was_begun_again(make_site, gate):
    """The first attempt has said something before its worker died, in a message of its own."""
    # Long enough for a loaded machine: who loses it while he works is begun again beside himself.
    site = make_site(runs={"lease": 4 * LEASE, "on_crash": "retry"})
    starting = [site.begin_to_serve("--no-worker"), site.begin_to_work(), site.begin_to_work()]
    replica = await asyncio.to_thread(starting[0].answer)
    workers = {worker.pid: worker for worker in starting[1:]}
    async with replica.client() as http:
        turns = []
        for _ in range(2):
            thread_id = await talking.new_thread(http)
            turn = asyncio.create_task(talking.send(http, thread_id, "announce"))
            held = await gate.wait()
            (run,) = (await http.get(f"/threads/{thread_id}/runs")).json()["data"]
            await talking.read_events_until(http, thread_id, run["run_id"], "message.completed")
            turns.append((turn, held, run))

        turn, held, run = turns.pop()
        workers[held.pid].kill()
        url = f"/threads/{run['thread_id']}/runs/{run['run_id']}/cancel"
        assert (await http.post(url)).status_code in {200, 202}
        heard = [message["content"] for message in (await turn)["messages"]]
        assert await talking.history(http, run["thread_id"]) == ["announce", *heard]

        turn, held, run = turns.pop()
        if workers[held.pid].is_alive:
            workers[held.pid].kill()
        await asyncio.to_thread(site.work)
        (await gate.wait()).let_go()
        said = [message["content"] for message in (await turn)["messages"]]
        assert said == ["I begin", "I end"]
        assert await talking.history(http, run["thread_id"]) == ["announce", *said]
