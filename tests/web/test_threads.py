"""Threads over HTTP."""

import uuid

import pytest


async def test_a_thread_is_created_without_a_body(serve):
    client = await serve()
    answer = await client.post("/threads", headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    thread = answer.json()
    assert uuid.UUID(thread["thread_id"]).version == 7
    assert thread["status"] == "idle"
    assert thread["name"] is None
    assert thread["metadata"] == {}
    assert thread["created_at"].endswith("Z")


async def test_a_client_may_choose_the_id(serve):
    client = await serve()
    chosen = str(uuid.uuid4())
    answer = await client.post("/threads", json={"thread_id": chosen, "metadata": {"a": 1}})
    assert answer.json()["thread_id"] == chosen
    again = await client.get(f"/threads/{chosen}")
    assert again.json() == answer.json()


async def test_a_taken_id_is_a_conflict_unless_the_existing_thread_is_wanted(serve):
    client = await serve()
    chosen = str(uuid.uuid4())
    first = await client.post("/threads", json={"thread_id": chosen, "metadata": {"a": 1}})
    second = await client.post("/threads", json={"thread_id": chosen})
    assert (second.status_code, second.json()["code"]) == (409, "id_taken")
    third = await client.post("/threads", json={"thread_id": chosen, "if_exists": "return"})
    assert third.json() == first.json()


async def test_r41_a_taken_id_answers_the_same_whoever_has_it(serve, as_user):
    client = await serve(auth="jwt")
    chosen = str(uuid.uuid4())
    await client.post("/threads", json={"thread_id": chosen}, headers=as_user("alice"))
    mine = await client.post("/threads", json={"thread_id": chosen}, headers=as_user("alice"))
    other = await client.post("/threads", json={"thread_id": chosen}, headers=as_user("bob"))
    grab = await client.post(
        "/threads", json={"thread_id": chosen, "if_exists": "return"}, headers=as_user("bob")
    )
    assert mine.status_code == other.status_code == grab.status_code == 409
    assert mine.json() == other.json() == grab.json()


async def test_threads_are_listed_newest_first_page_by_page(serve, new_thread):
    client = await serve()
    made = [await new_thread(client) for _ in range(5)]
    seen = []
    cursor = None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/threads", params=params)).json()
        seen += [thread["thread_id"] for thread in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_threads_are_found_by_metadata_and_status(serve, new_thread):
    client = await serve()
    wanted = await new_thread(client, json={"metadata": {"topic": "billing", "vip": True}})
    await new_thread(client, json={"metadata": {"topic": "other"}})
    found = await client.get("/threads", params={"metadata": '{"topic": "billing"}'})
    assert [thread["thread_id"] for thread in found.json()["data"]] == [wanted]
    idle = await client.get("/threads", params={"status": "idle"})
    assert len(idle.json()["data"]) == 2
    busy = await client.get("/threads", params={"status": "busy"})
    assert busy.json()["data"] == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=garbage",
        "cursor=%00",
        "status=nope",
        "metadata=[1]",
        "metadata={",
        "cursor=" + "A" * 600,
    ],
)
async def test_r36_a_bad_query_is_a_422_that_repeats_nothing(serve, query):
    client = await serve()
    answer = await client.get(f"/threads?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "garbage" not in answer.text


async def test_a_thread_is_renamed_and_its_metadata_merged(serve, new_thread):
    client = await serve()
    thread_id = await new_thread(client, json={"metadata": {"a": 1, "b": 2}})
    answer = await client.patch(
        f"/threads/{thread_id}", json={"name": " Bills ", "metadata": {"b": None, "c": 3}}
    )
    assert answer.status_code == 200
    assert answer.json()["name"] == "Bills"
    assert answer.json()["metadata"] == {"a": 1, "c": 3}


@pytest.mark.parametrize(
    "body", [{"name": ""}, {"name": 1}, {"nam": "x"}, [], "x", {"metadata": 1}]
)
async def test_a_bad_change_is_refused(serve, new_thread, body):
    client = await serve()
    thread_id = await new_thread(client)
    assert (await client.patch(f"/threads/{thread_id}", json=body)).status_code == 422


async def test_deleting_a_thread_deletes_everything_of_it_and_frees_the_id(serve, new_thread):
    client = await serve()
    thread_id = await new_thread(client)
    await client.post(f"/threads/{thread_id}/messages", json={"content": "secret"})
    assert (await client.delete(f"/threads/{thread_id}")).status_code == 204
    assert (await client.get(f"/threads/{thread_id}")).status_code == 404
    assert (await client.get(f"/threads/{thread_id}/messages")).status_code == 404
    assert (await client.delete(f"/threads/{thread_id}")).status_code == 404
    await new_thread(client, json={"thread_id": thread_id})
    assert (await client.get(f"/threads/{thread_id}/messages")).json()["data"] == []


async def test_r41_a_stranger_finds_no_thread(serve, as_user, new_thread):
    client = await serve(auth="jwt")
    thread_id = await new_thread(client, headers=as_user("alice"))
    sent = await client.post(
        f"/threads/{thread_id}/messages", json={"content": "hi"}, headers=as_user("alice")
    )
    run_id = sent.json()["run_id"]
    bob = as_user("bob")
    missing = await client.get(f"/threads/{uuid.uuid4()}", headers=bob)
    answers = [
        await client.get(f"/threads/{thread_id}", headers=bob),
        await client.patch(f"/threads/{thread_id}", json={"name": "mine"}, headers=bob),
        await client.delete(f"/threads/{thread_id}", headers=bob),
        await client.get(f"/threads/{thread_id}/messages", headers=bob),
        await client.post(f"/threads/{thread_id}/messages", json={"content": "x"}, headers=bob),
        await client.post(
            f"/threads/{thread_id}/messages", json={"content": "x", "stream": True}, headers=bob
        ),
        await client.get(f"/threads/{thread_id}/runs", headers=bob),
        await client.get(f"/threads/{thread_id}/runs/{run_id}", headers=bob),
        await client.get(f"/threads/{thread_id}/runs/{run_id}/events", headers=bob),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert answers[0].json() == missing.json()
    own = await new_thread(client, headers=bob)
    through_own = await client.get(f"/threads/{own}/runs/{run_id}/events", headers=bob)
    assert through_own.status_code == 404
    listed = await client.get("/threads", headers=bob)
    assert [thread["thread_id"] for thread in listed.json()["data"]] == [own]
    assert (await client.get(f"/threads/{thread_id}", headers=as_user("alice"))).status_code == 200


async def test_anonymous_threads_belong_to_no_credential(serve, as_user, new_thread, project):
    """The owner of mode none cannot be claimed by a token that names the empty user."""
    client = await serve()
    thread_id = await new_thread(client)
    secured = await serve(auth="jwt", database="sqlite:///other.db")
    for user_id in ("", " ", "anonymous", "\x00"):
        answer = await secured.get(f"/threads/{thread_id}", headers=as_user(user_id))
        assert answer.status_code in {401, 404}
