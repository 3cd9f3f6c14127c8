"""What of a caller reaches his agent, and nobody else's."""

import asyncio
import json

import pytest

SHOW = """
import json
def app(messages, config):
    return json.dumps(config, sort_keys=True)
"""

MEDDLING = """
import json
async def app(messages, config):
    seen = json.dumps([config["roles"], config["user"]["roles"]])
    config["roles"].append("admin")
    config["user"]["roles"].append("admin")
    config["user"]["user_id"] = "root"
    return seen
"""

LATE = """
import asyncio, json
async def app(messages, config):
    await asyncio.sleep(0.001)
    return json.dumps([config["user_id"], config["team"], config["user"]["team"], config["thread_id"]])
"""


async def config_seen(client, thread_id, headers=None, **body):
    answer = await client.post(
        f"/threads/{thread_id}/messages", json={"content": "x", **body}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return json.loads(answer.json()["message"]["content"])


async def test_every_claim_is_at_top_level_and_under_user(serve, as_user, new_thread):
    client = await serve(SHOW, auth="jwt")
    headers = as_user("alice", roles=["admin"], plan={"name": "pro"})
    thread_id = await new_thread(client, headers=headers)
    config = await config_seen(client, thread_id, headers)
    assert config["user_id"] == "alice"
    assert config["roles"] == ["admin"]
    assert config["plan"] == {"name": "pro"}
    assert config["user"]["roles"] == ["admin"]
    assert config["thread_id"] == thread_id
    assert config["agent"] == "agent"


async def test_r92_in_mode_none_there_are_no_claims(serve, as_user, new_thread):
    client = await serve(SHOW)
    config = await config_seen(client, await new_thread(client), as_user("alice", roles=["admin"]))
    assert config["user_id"] is None
    assert config["user"] == {}
    assert "roles" not in config


async def test_r27_a_hostile_claim_replaces_nothing(serve, as_user, new_thread):
    client = await serve(SHOW, auth="jwt")
    hostile = {
        "thread_id": "x", "run_id": "x", "agent": "x", "user": {"user_id": "root"},
        "__secret": 1, "_private": 2, "configurable": {"thread_id": "x"}, "recursion_limit": 10**6,
        "callbacks": ["x"], "checkpoint_id": "x",
    }  # fmt: skip
    headers = as_user("alice", **hostile)
    thread_id = await new_thread(client, headers=headers)
    config = await config_seen(client, thread_id, headers)
    assert config["user_id"] == "alice"
    assert config["thread_id"] == thread_id
    assert config["run_id"] != "x"
    assert config["agent"] == "agent"
    assert config["user"]["user_id"] == "alice"
    assert "__secret" not in config
    assert "_private" not in config
    assert {key: config["user"][key] for key in hostile} == hostile, "it stays visible under user"


@pytest.mark.parametrize(
    "key",
    ["user_id", "user", "roles", "thread_id", "run_id", "agent", "configurable", "checkpoint_id",
     "langgraph_auth_user", "langgraph_auth_user_id", "__pregel", "authz", "permissions"],
)  # fmt: skip
async def test_r27_a_client_cannot_send_what_his_token_lacks(serve, as_user, new_thread, key):
    client = await serve(SHOW, auth="jwt")
    headers = as_user("alice")
    thread_id = await new_thread(client, headers=headers)
    answer = await client.post(
        f"/threads/{thread_id}/messages", json={"content": "x", "config": {key: "root"}},
        headers=headers,
    )  # fmt: skip
    assert answer.status_code == 422
    assert key in answer.json()["detail"]
    in_body = await client.post(
        f"/threads/{thread_id}/messages", json={"content": "x", key: "root"}, headers=headers
    )
    assert in_body.status_code == (404 if key == "agent" else 422)


async def test_r27_a_listed_key_passes_within_its_bounds(serve, new_thread):
    client = await serve(SHOW, runs={"client_config": ["tags", "recursion_limit", "tone"]})
    thread_id = await new_thread(client)
    sent = {"recursion_limit": 50, "tags": ["a"], "tone": "kind"}
    config = await config_seen(client, thread_id, config=sent)
    assert {key: config[key] for key in sent} == sent
    for bad in ({"recursion_limit": 0}, {"recursion_limit": 101}, {"recursion_limit": True},
                {"recursion_limit": "9"}, {"tags": "a"}, {"tags": [1]}, {"tags": ["x" * 65]}):  # fmt: skip
        answer = await client.post(
            f"/threads/{thread_id}/messages", json={"content": "x", "config": bad}
        )
        assert answer.status_code == 422, bad


async def test_r27_a_listed_key_never_replaces_a_claim(serve, as_user, new_thread):
    client = await serve(SHOW, auth="jwt", runs={"client_config": ["tone"]})
    headers = as_user("alice", tone="strict")
    thread_id = await new_thread(client, headers=headers)
    config = await config_seen(client, thread_id, headers, config={"tone": "kind"})
    assert config["tone"] == "strict"


async def test_r27_r48_an_agent_that_meddles_with_its_config_changes_nobody_elses(
    serve, as_user, new_thread
):
    client = await serve(MEDDLING, auth="jwt")
    headers = as_user("alice", roles=["reader"])
    thread_id = await new_thread(client, headers=headers)
    for _ in range(3):
        seen = await config_seen(client, thread_id, headers)
        assert seen == [["reader"], ["reader"]]


async def test_r48_no_claim_crosses_between_users(serve, as_user, new_thread):
    client = await serve(LATE, auth="jwt")
    users = [f"user-{n}" for n in range(40)]

    async def talk(user: str) -> None:
        headers = as_user(user, team=f"team of {user}")
        thread_id = await new_thread(client, headers=headers)
        for _ in range(5):
            seen = await config_seen(client, thread_id, headers)
            assert seen == [user, f"team of {user}", f"team of {user}", thread_id]

    await asyncio.gather(*(talk(user) for user in users))


async def test_claims_are_never_returned(serve, as_user, new_thread):
    client = await serve(auth="jwt")
    headers = as_user("alice", ssn="c4n4ry")
    thread_id = await new_thread(client, headers=headers)
    sent = await client.post(
        f"/threads/{thread_id}/messages", json={"content": "x"}, headers=headers
    )
    run_id = sent.json()["run_id"]
    for path in ("", "/messages", "/runs", f"/runs/{run_id}", f"/runs/{run_id}/events"):
        answer = await client.get(f"/threads/{thread_id}{path}", headers=headers)
        assert answer.status_code == 200
        assert "c4n4ry" not in answer.text
