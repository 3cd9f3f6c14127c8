"""Who may do what, over HTTP: scopes, roles, a function of the user's, administrators."""

import pytest

from agentflow_server.web.scopes import SCOPES, UNSCOPED

ROLES = {
    "roles": {
        "reader": ["threads:read", "runs:read"],
        "writer": ["threads:read", "threads:write", "runs:create"],
        "root": ["admin"],
    },
    "default_scopes": ["agents:read"],
}

DECIDE = """
import asyncio
def by_resource(principal, action, resource):
    return principal.id == "alice" and action != "threads:write"

async def slowly(principal, action, resource):
    await asyncio.sleep(0)
    return True

def broken(principal, action, resource):
    raise RuntimeError("no database")

def truthy(principal, action, resource):
    return "yes"

def wrong(principal):
    return True

async def leaving(principal, action, resource):
    raise SystemExit(3)

async def cancelling(principal, action, resource):
    raise asyncio.CancelledError
"""


async def test_without_configuration_everything_of_ones_own_is_allowed(serve, as_user, new_thread):
    client = await serve(auth="jwt")
    thread_id = await new_thread(client, headers=as_user("alice", scope="nothing"))
    answer = await client.get(f"/threads/{thread_id}", headers=as_user("alice"))
    assert answer.status_code == 200


async def test_without_configuration_nobody_reads_what_is_not_his(serve, as_user):
    client = await serve(auth="jwt")
    headers = as_user("alice", scope="admin", roles=["admin", "root"])
    answer = await client.get("/threads?owner=bob", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_r29_a_missing_scope_is_a_403_that_names_it(serve, as_user):
    client = await serve(auth="jwt", authorization=ROLES)
    headers = as_user("alice", roles=["reader"])
    assert (await client.get("/threads", headers=headers)).status_code == 200
    assert (await client.get("/agents", headers=headers)).status_code == 200
    refused = await client.post("/threads", headers=headers)
    assert refused.status_code == 403
    assert refused.json()["scope"] == "threads:write"
    assert (
        refused.headers["www-authenticate"]
        == 'Bearer error="insufficient_scope", scope="threads:write"'
    )


async def test_r29_a_stranger_is_a_401_and_never_a_403(serve):
    client = await serve(auth="jwt", authorization=ROLES)
    assert (await client.post("/threads")).status_code == 401
    for value in ("Bearer x.y.z", "Bearer", "Basic eDp5"):
        answer = await client.post("/threads", headers={"Authorization": value})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "claims",
    [{"scope": "threads:read threads:write"}, {"scp": ["threads:write"]}, {"roles": ["writer"]},
     {"roles": ["nobody", "root"]}, {"permissions": ["threads:write"]}],
)  # fmt: skip
async def test_scopes_come_from_the_token_and_from_roles(serve, as_user, claims):
    client = await serve(auth="jwt", authorization=ROLES)
    answer = await client.post("/threads", headers=as_user("alice", **claims))
    assert answer.status_code == 200


async def test_the_scope_is_asked_for_before_the_body_is_read(serve, as_user, exchange, token):
    client = await serve(auth="jwt", authorization=ROLES)
    answer = await exchange(
        client,
        f"POST /threads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{".encode(),
    )
    assert answer.startswith(b"HTTP/1.1 403 ")


async def test_an_administrator_reads_across_owners_and_changes_nothing(serve, as_user, new_thread):
    client = await serve(auth="jwt", authorization=ROLES)
    bob = as_user("bob", roles=["writer"])
    thread_id = await new_thread(client, headers=bob)
    await client.post(f"/threads/{thread_id}/messages", json={"content": "hi"}, headers=bob)
    admin = as_user("carol", roles=["root"])
    assert (await client.get(f"/threads/{thread_id}", headers=admin)).status_code == 404
    listed = await client.get("/threads?owner=bob", headers=admin)
    assert [thread["thread_id"] for thread in listed.json()["data"]] == [thread_id]
    history = await client.get(f"/threads/{thread_id}/messages?owner=bob", headers=admin)
    assert len(history.json()["data"]) == 2
    assert (
        await client.delete(f"/threads/{thread_id}?owner=bob", headers=admin)
    ).status_code == 422
    assert (await client.delete(f"/threads/{thread_id}", headers=admin)).status_code == 404
    reader = as_user("dave", roles=["reader"])
    refused = await client.get("/threads?owner=bob", headers=reader)
    assert (refused.status_code, refused.json()["scope"]) == (403, "admin")


@pytest.mark.parametrize(
    ("function", "user", "expected"),
    [("by_resource", "alice", 200), ("by_resource", "bob", 403), ("slowly", "bob", 200),
     ("broken", "alice", 403), ("truthy", "alice", 403), ("leaving", "alice", 403),
     ("cancelling", "alice", 403)],
)  # fmt: skip
async def test_ones_own_function_decides_and_fails_closed(
    serve, project, as_user, function, user, expected
):
    module = project.module(DECIDE)
    client = await serve(auth="jwt", authorization=f"{module}:{function}")
    assert (await client.get("/threads", headers=as_user(user))).status_code == expected


def test_a_function_that_cannot_be_asked_stops_the_server(project):
    from agentflow_server import ConfigError

    module = project.module(DECIDE)
    with pytest.raises(ConfigError, match="authorization: expected a callable of three arguments"):
        project.app(auth="jwt", authorization=f"{module}:wrong")


def test_every_route_has_a_scope_and_every_scope_a_route():
    from agentflow_server.app import SECURED
    from agentflow_server.web.token_server import userinfo

    routers = (*SECURED, userinfo)
    routes = {(m, r.path) for router in routers for r in router.routes for m in r.methods}
    assert routes == set(SCOPES) | UNSCOPED
    assert not set(SCOPES) & UNSCOPED
