"""R85: requests go on while the audit log cannot be written, and nothing of it is lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2


def test_r85_requests_go_on_while_the_audit_log_cannot_be_written(
    project: Callable[..., Path], serve: Callable[..., Any], agentflow: Callable[..., str]
) -> None:
    audit = {"sink": "file", "path": "logs/audit.log"}
    folder = project(auth="jwt", observability={"audit": audit})
    logs = folder / "logs"
    own = {"JWT_SECRET_KEY": "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"}
    token = agentflow(folder, "token", "--user-id", "alice", **own)
    server = serve(folder, **own)
    shutil.rmtree(logs)
    logs.touch()  # no folder, so no file in it
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        for _ in range(5):
            assert client.get("/threads", headers=headers).status_code == 200
            assert client.get("/threads").status_code == 401
        server.wait_for(b"the audit log cannot be written")
        assert client.get("/threads", headers=headers).status_code == 200
    logs.unlink()
    logs.mkdir()
    assert server.stop() == 0
    events = [json.loads(line) for line in (logs / "audit.log").read_text().splitlines()]
    authenticated = [event["result"] for event in events if event["action"] == "authenticate"]
    assert authenticated.count("success") == 6
    assert [event["result"] for event in events].count("failure") == 5
    assert "None was changed" in agentflow(folder, "audit", "verify", **own)
