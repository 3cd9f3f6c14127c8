"""A user's own class beside other methods, through the whole server."""

import pytest

from agentflow_server.errors import ConfigError

BACKEND = """
from agentflow_server import BaseAuth

class Shop(BaseAuth):
    def __init__(self, closed="closed.txt"):
        self.closed = closed

    def recognises(self, credential):
        return credential.startswith("shop_")

    def authenticate(self, res, credential):
        return {"user_id": credential.credentials} if credential.credentials != "shop_0" else None

    async def close(self):
        with open(self.closed, "a") as file:
            file.write("closed\\n")

def app(messages, config):
    return config["user_id"]
"""


async def test_what_the_first_class_says_is_not_its_own_goes_to_the_next_method(
    serve, project, as_user, new_thread
):
    project.monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    module = project.module(BACKEND)
    shop = {"method": "custom", "path": f"{module}:Shop"}
    shop["options"] = {"closed": str(project.folder / "closed.txt")}
    client = await serve(agent=f"{module}:app", auth=[shop, "jwt", "api_key"])
    for headers, user in (
        ({"Authorization": "Bearer shop_7"}, "shop_7"),
        (as_user("alice"), "alice"),
    ):
        thread_id = await new_thread(client, headers=headers)
        answer = await client.post(
            f"/threads/{thread_id}/messages", json={"content": "x"}, headers=headers
        )
        assert answer.json()["message"]["content"] == user
    for refused in ("shop_0", "opaque", "afk_nonsense"):
        answer = await client.get("/threads", headers={"Authorization": f"Bearer {refused}"})
        assert answer.status_code == 401


async def test_the_class_is_closed_when_the_server_stops(project, run_app):
    module = project.module(BACKEND)
    closed = project.folder / "closed.txt"
    auth = {"method": "custom", "path": f"{module}:Shop", "options": {"closed": str(closed)}}
    async with run_app(project.app(agent=f"{module}:app", auth=auth)):
        assert not closed.exists()
    assert closed.read_text() == "closed\n"


def test_a_class_that_takes_everything_does_not_start_before_others(project):
    module = project.module(BACKEND.replace("recognises", "is_mine"))
    shop = {"method": "custom", "path": f"{module}:Shop"}
    with pytest.raises(ConfigError, match=r"takes every bearer token.*write it last"):
        project.app(agent=f"{module}:app", auth=[shop, "api_key"])
