"""How often who may ask, and whom a flood costs."""

import asyncio


async def test_r65_a_caller_has_a_quota_of_his_own(serve, as_user):
    client = await serve(auth="jwt", rate_limit={"per_principal": "3/hour"})
    answers = [await client.get("/threads", headers=as_user("alice")) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"principal";q=3;w=3600'
    assert answers[0].headers["ratelimit"].startswith('"principal";r=2;t=')
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    assert (await client.get("/threads", headers=as_user("bob"))).status_code == 200


async def test_r65_an_address_has_a_quota_whoever_asks_from_it(serve, as_user):
    client = await serve(auth="jwt", rate_limit={"per_address": "2/hour"})
    statuses = [(await client.get("/threads", headers=as_user(user))).status_code for user in "abc"]
    assert statuses == [200, 200, 429]
    assert (await client.get("/ping")).status_code == 200


async def test_a_route_has_a_quota(serve, as_user):
    client = await serve(auth="jwt", rate_limit={"routes": {"POST /threads": "1/hour"}})
    assert (await client.post("/threads", headers=as_user())).status_code == 200
    assert (await client.post("/threads", headers=as_user())).status_code == 429
    assert (await client.get("/threads", headers=as_user())).status_code == 200


async def test_r65_a_flood_of_bad_tokens_costs_the_attacker_and_nobody_else(serve, as_user):
    client = await serve(auth="jwt", rate_limit={"failed_auth": "5/hour"})
    forged = as_user("alice")["Authorization"].rpartition(".")[0] + "." + "A" * 43
    bad = {"Authorization": forged, "X-Forwarded-For": "203.0.113.9"}
    answers = [await client.get("/threads", headers=bad) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"):
        for address in ("203.0.113.10", "127.0.0.1", "for=203.0.113.11"):
            moved = await client.get("/threads", headers=bad | {header: address})
            assert moved.status_code == 429, "no proxy is trusted"
    for user in ("alice", "bob"):
        good = await client.get("/threads", headers=as_user(user))
        assert good.status_code == 200, "a good token from the same address is not stopped"
    assert (await client.get("/threads")).status_code == 401, "nor is a request without one"


async def test_r65_a_flood_of_wrong_api_keys_stops_no_good_key_and_no_token(
    serve, as_user, monkeypatch
):
    monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    client = await serve(auth=["jwt", "api_key"], rate_limit={"failed_auth": "3/hour"})
    wrong = "afk_0123456789ab_" + "A" * 43 + "1iFFS5"
    tries = [{"X-API-Key": wrong}, {"Authorization": f"Bearer {wrong}"}] * 3
    statuses = [(await client.get("/threads", headers=one)).status_code for one in tries]
    assert statuses == [401] * 3 + [429] * 3
    assert (await client.get("/threads", headers=as_user("alice"))).status_code == 200


async def test_r32_a_trusted_proxy_is_believed_about_addresses(serve):
    client = await serve(
        auth="jwt",
        rate_limit={"failed_auth": "1/hour"},
        limits={"trusted_proxies": ["127.0.0.0/8"]},
    )
    for last in (1, 2):
        headers = {"Authorization": "Bearer x", "X-Forwarded-For": f"203.0.113.{last}"}
        assert (await client.get("/threads", headers=headers)).status_code == 401
    again = {"Authorization": "Bearer x", "X-Forwarded-For": "198.51.100.7, 203.0.113.1"}
    assert (await client.get("/threads", headers=again)).status_code == 429


SLOW = """
import asyncio
gate = asyncio.Event()
async def app(messages, config):
    if messages[-1]["content"] == "open":
        gate.set()
    await asyncio.wait_for(gate.wait(), 10)
    return "done"
"""


async def insist(client, thread, content):
    """A request whose answer is read may take up its place for a moment longer."""
    answer = await client.post(f"/threads/{thread}/messages", json={"content": content})
    return await insist(client, thread, content) if answer.status_code == 503 else answer


async def test_more_requests_at_once_than_allowed_are_a_503(serve, new_thread):
    client = await serve(SLOW, limits={"concurrent_requests": 2})
    first, second = await new_thread(client), await new_thread(client)
    waiting = asyncio.create_task(insist(client, first, "x"))
    while (await client.get(f"/threads/{first}")).json()["status"] != "busy":
        assert not waiting.done()
    opening = asyncio.create_task(insist(client, second, "wait"))
    while (crowded := await client.get("/threads")).status_code == 200:
        await asyncio.sleep(0.005)
    assert (crowded.status_code, crowded.json()["code"]) == (503, "overloaded")
    assert (await client.get("/ping")).status_code == 200
    opening.cancel()
    waiting.cancel()
