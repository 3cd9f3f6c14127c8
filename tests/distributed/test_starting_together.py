"""Many processes find an empty database at the same moment."""

import asyncio
from uuid import uuid4

import pytest

from tests.distributed import talking
from tests.distributed.site import DEADLINE

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from agentflow_server.stores.postgres import PostgresStore

COUNT = 6
_LONG_AGO = "UPDATE threads SET updated_at = updated_at - 3600000000 WHERE thread_id = %s"


async def test_one_of_many_makes_the_tables_and_all_serve(make_site, postgres_url, postgres_server):
    site = make_site()
    starting = [site.begin_to_serve() for _ in range(COUNT - 1)]
    worker = site.begin_to_work()
    replicas = await asyncio.gather(*(asyncio.to_thread(one.answer) for one in starting))
    await asyncio.to_thread(worker.wait_for, "executing runs")
    async with replicas[0].client() as http:
        thread_id = await talking.new_thread(http)
    for replica in replicas:
        async with replica.client() as http:
            assert (await http.get("/health/ready")).status_code == 200
            turn = await talking.send(http, thread_id, "who")
            assert turn["message"]["content"] == str(replica.pid)
    applied = postgres_server.execute(
        "SELECT version, count(*) FROM agentflow.schema_migrations GROUP BY version ORDER BY version",
        postgres_url,
    )
    assert applied == [(number, 1) for number in range(1, len(applied) + 1)]
    assert len(applied) > 5
    assert [each.stop() for each in (*replicas, worker)] == [0] * COUNT
    site.check_logs()


async def test_a_server_that_comes_later_disturbs_no_copy_and_no_deletion(make_site, postgres_url):
    """What is being copied or deleted at the moment looks like what a crash left behind."""
    site = make_site()
    one = await asyncio.to_thread(site.serve)
    async with one.client() as http, PostgresStore(postgres_url) as store:
        source, deleted, left = [await talking.new_thread(http) for _ in range(3)]
        await talking.send(http, source, "hello")
        copy = await store.begin_copy("alice", source, str(uuid4()), metadata={})
        await store.hide_thread("alice", deleted)
        await store.hide_thread("alice", left)
        await store.write(lambda connection: connection.execute(_LONG_AGO, (left,)))
        await asyncio.to_thread(site.serve)
        async with asyncio.timeout(DEADLINE):
            while left in {thread for thread, _ in await store.list_hidden_threads(older_than=60)}:
                await asyncio.sleep(0.05)
        await store.finish_copy("alice", copy)
        assert await talking.history(http, copy.thread_id) == ["hello", "echo hello"]
        assert [thread for thread, _ in await store.list_hidden_threads()] == [deleted]
        taken = await http.post("/threads", json={"thread_id": deleted})
        assert (taken.status_code, taken.json()["code"]) == (409, "id_taken")
        assert (await http.post("/threads", json={"thread_id": left})).status_code == 200
