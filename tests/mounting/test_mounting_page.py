"""The code on docs/mounting.md runs, and does what the page says."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "mounting.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def build(project, monkeypatch):
    monkeypatch.chdir(project().parent)

    def build(block):
        names = {"__name__": "page"}
        exec(compile(block, "mounting.md", "exec"), names)
        return names["app"]

    return build


async def test_the_first_application_of_the_page_has_users_of_its_own(build, serve, say):
    client = await serve(build(BLOCKS[0]))
    alice = {"Authorization": "Bearer token-of-alice"}
    assert (await say(client, "Hi", headers=alice))["user_id"] == "alice"
    refused = await client.get("/agent-api/agents", headers={"Authorization": "Bearer x"})
    assert (refused.status_code, refused.json()) == (401, {"detail": "Log in first"})


async def test_the_plain_mount_of_the_page_works(build, serve, say):
    host = build(BLOCKS[1])
    client = await serve(host)
    assert await say(client, "Hi") == {"said": "Hi"}
    next(route.app for route in host.routes if route.path == "/agent-api")._portal.close()
