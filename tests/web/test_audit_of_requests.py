"""What requests leave in the audit log, and what backends' own answers cost."""

import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest

SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
BACKEND = """
from fastapi import HTTPException
from agentflow_server import BaseAuth

class Auth(BaseAuth):
    def authenticate(self, res, credential):
        if credential.credentials.isdigit():
            raise HTTPException(int(credential.credentials), "as asked")
        return {"user_id": credential.credentials}

def app(messages, config):
    return "x"
"""

AUDIT = {"audit": {"sink": "file", "path": "audit.jsonl"}}


async def lines_of(client, project):
    """The log, once the server has closed it."""
    return [json.loads(line) for line in (project.folder / "audit.jsonl").read_text().splitlines()]


@pytest.fixture
def audited(project, run_app):
    """Runs requests against a server with an audit log; returns what it wrote."""
    import httpx2

    async def run(requests, **config):
        app = project.app(BACKEND, observability=AUDIT, **config)
        async with run_app(app) as url, httpx2.AsyncClient(base_url=url) as client:
            for method, path, headers in requests:
                await client.request(method, path, headers=headers)
        return await lines_of(client, project)

    return run


async def test_r80_every_decision_is_a_line_of_its_own(audited, as_user):
    reader = as_user("alice", roles=["reader"], jti="t-1")
    events = await audited(
        [
            ("GET", "/threads", reader),
            ("POST", "/threads", reader),
            ("GET", "/threads", {"Authorization": "Bearer x.y.z"}),
            ("GET", "/threads", {}),
            ("GET", "/ping", {}),
        ],
        auth="jwt",
        authorization={"roles": {"reader": ["threads:read"]}},
    )
    assert [(event["action"], event["result"]) for event in events] == [
        ("authenticate", "success"), ("authorize", "success"),
        ("authenticate", "success"), ("authorize", "failure"),
        ("authenticate", "failure"), ("authenticate", "failure"),
    ]  # fmt: skip
    first, refused, stranger = events[0], events[3], events[4]
    assert (first["user_id"], first["token_id"], first["algorithm"]) == ("alice", "t-1", "HS256")
    assert first["route"] == "GET /threads"
    assert first["client"] == "127.0.0.1"
    assert first["request_id"]
    assert refused["details"] == {"scope": "threads:write"}
    assert "user_id" not in stranger, "only a verified user is named"
    assert stranger["reason"] == "malformed" or stranger["reason"].startswith("bad_")
    assert events[5]["reason"] == "missing"


FIELDS = {
    "seq", "time", "action", "result", "user_id", "method", "issuer", "token_id", "algorithm",
    "key_id", "client", "route", "request_id", "prev", "hash",
}  # fmt: skip


async def test_r80_a_line_has_all_that_is_known_of_a_request(audited, as_user, monkeypatch):
    monkeypatch.setenv("JWT_ISSUER", "https://login.example.com")
    token = jwt.encode(
        {
            "user_id": "alice",
            "exp": 4_000_000_000,
            "jti": "t-1",
            "iss": "https://login.example.com",
        },
        SECRET,
        headers={"kid": "2026-11"},
    )
    forged = token.rpartition(".")[0] + "." + "A" * 43
    headers = {"X-Request-Id": "abc-1", "X-Forwarded-For": "203.0.113.9"}
    good, bad = (
        ("GET", "/threads?limit=7", headers | {"Authorization": f"Bearer {one}"})
        for one in (token, forged)
    )
    before = datetime.now(UTC)
    events = await audited([good, bad], auth="jwt")
    (success, failure) = (event for event in events if event["action"] == "authenticate")
    assert set(success) == FIELDS
    assert (success["result"], failure["result"]) == ("success", "failure")
    verified = ("user_id", "method", "issuer", "token_id")
    assert [success[name] for name in verified] == [
        "alice", "jwt", "https://login.example.com", "t-1"
    ]  # fmt: skip
    assert failure["reason"] == "bad_signature"
    assert set(failure) == FIELDS - set(verified) | {"reason"}, "what is not verified is not named"
    for event in (success, failure):
        assert (event["algorithm"], event["key_id"]) == ("HS256", "2026-11")
        assert (event["client"], event["route"]) == ("127.0.0.1", "GET /threads")
        assert event["request_id"] == "abc-1"
        assert event["time"].endswith("Z")
        assert timedelta() <= datetime.fromisoformat(event["time"]) - before < timedelta(minutes=1)


async def test_r80_each_of_many_requests_is_a_line(audited, as_user):
    credentials = [
        as_user("alice"),
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic x"},
    ]
    events = await audited([("GET", "/threads", one) for one in credentials * 5], auth="jwt")
    results = [event["result"] for event in events if event["action"] == "authenticate"]
    assert results == ["success", "failure", "failure", "failure"] * 5


async def test_r80_a_rate_limit_and_reading_for_others_are_written_down(audited, as_user):
    admin = as_user("carol", roles=["root"])
    events = await audited(
        [("GET", "/threads?owner=bob", admin), ("GET", "/threads", admin)],
        auth="jwt",
        authorization={"roles": {"root": ["admin"]}},
        rate_limit={"per_principal": "1/hour"},
    )
    read = next(event for event in events if event["action"] == "read_as_admin")
    assert (read["user_id"], read["details"]) == ("carol", {"owner": "bob"})
    assert (events[-1]["action"], events[-1]["details"]) == ("rate_limit", {"quota": "principal"})


async def test_a_backend_that_is_unavailable_is_no_refusal(serve, project):
    module = project.module(BACKEND)
    client = await serve(
        agent=f"{module}:app",
        auth={"method": "custom", "path": f"{module}:Auth"},
        rate_limit={"failed_auth": "2/hour"},
    )
    away = [
        (await client.get("/threads", headers={"Authorization": "Bearer 503"})).status_code
        for _ in range(5)
    ]
    assert away == [503] * 5
    wrong = [
        (await client.get("/threads", headers={"Authorization": "Bearer 401"})).status_code
        for _ in range(3)
    ]
    assert wrong == [401, 401, 429]


async def test_a_request_counts_once_for_each_quota(serve):
    client = await serve(rate_limit={"per_address": "4/hour", "per_principal": "4/hour"})
    statuses = [(await client.get("/threads")).status_code for _ in range(5)]
    assert statuses == [200] * 4 + [429]
