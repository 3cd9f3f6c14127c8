"""R1, R6 and R7: what cannot be honoured ends `agentflow serve`, and says which line to mend."""

from typing import Any

import pytest

GOOD = "Zm9v-Yn2qRk8wTq0xLh3vBc6dPs1uEj9gXa4oMi7yKf5tWr-QzHlNbVe-J2sD8pGc"


@pytest.mark.parametrize(("algorithm", "minimum"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_r1_a_secret_that_is_too_short_ends_serve_and_is_not_shown(
    write: Any, refuse: Any, algorithm: str, minimum: int
) -> None:
    short = GOOD[: minimum - 1]
    folder = write({}, auth="jwt")
    refused = refuse(folder, JWT_SECRET_KEY=short, JWT_ALGORITHM=algorithm)
    assert (refused.code, refused.listened) == (2, False)
    (line,) = refused.lines
    assert line.startswith("JWT_SECRET_KEY: ")
    assert f"{minimum - 1} bytes" in line
    assert short[:8] not in line


@pytest.mark.parametrize(
    ("config", "environment", "line"),
    [
        ({"auth": "jwt"}, {"JWT_SECRET_KEY": ""}, "JWT_SECRET_KEY is empty"),
        ({"auth": {"method": "jwt", "secret_key": "${MY_KEY}"}}, {}, "MY_KEY is not set"),
        ({"auth": {"method": "jwt", "secret_key": "${MY_KEY}"}}, {"MY_KEY": ""}, "MY_KEY"),
        ({"auth": {"method": "jwt", "algorithmm": "HS256"}}, {}, "auth.algorithmm: unknown key"),
        ({"auth": {"methd": "jwt"}}, {}, "auth"),
        ({"auth": []}, {}, "auth: expected"),
        ({"auth": "jwt"}, {"JWT_SECRET_KEY": GOOD, "JWT_ALGORITHM": "none"}, "JWT_ALGORITHM"),
    ],
)
def test_r6_a_mistake_in_auth_never_means_no_authentication(
    write: Any, refuse: Any, config: Any, environment: Any, line: str
) -> None:
    refused = refuse(write({}, **config), **environment)
    assert (refused.code, refused.listened) == (2, False)
    assert line in refused.lines[0]


def test_r6_without_auth_the_network_is_refused_until_none_is_written_down(
    write: Any, refuse: Any, start: Any
) -> None:
    refused = refuse(write({}, auth=...), "--host", "0.0.0.0")
    assert (refused.code, refused.listened) == (2, False)
    assert 'write "auth": "jwt"' in refused.lines[0]
    server = start(write({}, auth=None), "--host", "0.0.0.0")
    server.wait_for("everybody may use this server")
    assert server.http.get("/threads").status_code == 200
    assert server.stop() == 0


DOORS = """
from agentflow_server import BaseAuth

class Stranger:
    def authenticate(self, res, credential):
        return {"user_id": "alice"}

class Abstract(BaseAuth):
    pass

class Narrow(BaseAuth):
    def authenticate(self, credential):
        return {"user_id": "alice"}

class Broken(BaseAuth):
    def __init__(self):
        raise LookupError("no such directory")

    def authenticate(self, res, credential):
        return {"user_id": "alice"}
"""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Stranger", "BaseAuth"),
        ("Abstract", "authenticate"),
        ("Narrow", "authenticate"),
        ("Broken", "LookupError: no such directory"),
    ],
)
def test_r7_a_class_that_is_no_backend_ends_serve(
    write: Any, refuse: Any, name: str, line: str
) -> None:
    auth = {"method": "custom", "path": f"doors:{name}"}
    refused = refuse(write({"doors.py": DOORS}, auth=auth))
    assert (refused.code, refused.listened) == (2, False)
    output = "\n".join(refused.lines)
    assert line in output
    assert ("doors.py" in output) is (name == "Broken"), "a traceback of the user's own code alone"
    assert "agentflow_server/" not in output
