"""agentflow.json is read strictly, and every problem is one helpful line."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agentflow_server.config import Config, NoAuthConfig, load_config, read_config, use_folder
from agentflow_server.errors import ConfigError

Load = Callable[..., Config]
Problems = Callable[..., Sequence[str]]


def test_one_agent_is_enough(load: Load, tmp_path: Path) -> None:
    config = load({})
    assert config.agents == {"agent": "graph.react:app"}
    assert config.auth == (NoAuthConfig(),)
    assert (config.host, config.port, config.log_level) == ("127.0.0.1", 8000, "info")
    assert config.folder == tmp_path
    assert config.path == tmp_path / "agentflow.json"
    assert config.database_path == tmp_path / ".agentflow/agentflow.db"
    assert config.runs.client_config == ["recursion_limit", "tags"]
    assert config.limits.max_body_bytes == 1_000_000
    assert config.cors.allow_origins == []


def test_the_first_of_several_agents_stays_first(load: Load) -> None:
    config = load('{"agents": {"zebra": "a.b:c", "ant": "d:e.f"}}')
    assert list(config.agents.items()) == [("zebra", "a.b:c"), ("ant", "d:e.f")]


def test_a_config_cannot_be_changed(load: Load) -> None:
    with pytest.raises(ValidationError):
        load({}).port = 1  # type: ignore[misc]


def test_schema_key_and_byte_order_mark_are_accepted(load: Load) -> None:
    assert load('\ufeff{"$schema": "x.json", "agent": "a:b"}').agents == {"agent": "a:b"}


def test_every_problem_is_reported_at_once(problems: Problems) -> None:
    lines = problems(
        '{"auht": "jwt", "agnet": "a:b", "env": "gone.env", "public_url": "${NOPE}",'
        ' "auth": {"method": "jwt", "path": "x:y"}, "runs": {"durability": "synk"}}',
        port=70_000,
    )
    wanted = ("auht", "agnet", "agent:", "env:", "NOPE", "auth.path", "runs.durability", "--port")
    assert len(lines) == len(wanted)
    for word in wanted:
        assert any(word in line for line in lines), word


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"auht": "jwt"}, 'auht: unknown key – did you mean "auth"?'),
        ({"Auth": "jwt"}, 'Auth: unknown key – did you mean "auth"?'),
        ({"authentication": "jwt"}, 'authentication: unknown key – did you mean "auth"?'),
        ({"public-url": 1}, 'public-url: unknown key – did you mean "public_url"?'),
        ({"playground": {}}, "playground: unknown key"),
        ({"zzz\u202e\n": 1}, '"zzz\\u202e\\n": unknown key'),
        ({"port": 1}, "port: unknown key – set it with --port or AGENTFLOW_PORT"),
        (
            {"limits": {"json_dept": 1}},
            'limits.json_dept: unknown key – did you mean "json_depth"?',
        ),
        ({"limits": []}, "limits: expected an object, found an empty list"),
        ({"limits": {"json_depth": "3"}}, 'limits.json_depth: expected a whole number, found "3"'),
        ({"limits": {"json_depth": 1.5}}, "limits.json_depth: expected a whole number, found 1.5"),
        (
            {"limits": {"json_depth": True}},
            "limits.json_depth: expected a whole number, found true",
        ),
        ({"limits": {"json_depth": 0}}, "limits.json_depth: expected at least 1, found 0"),
        ({"limits": {"json_depth": 201}}, "limits.json_depth: expected at most 200, found 201"),
        (
            {"limits": {"body_timeout": 0}},
            "limits.body_timeout: expected a number above 0.0, found 0",
        ),
        ({"cors": {"max_age": None}}, "cors.max_age: expected a whole number, found null"),
        (
            {"cors": {"allow_credentials": "yes"}},
            'cors.allow_credentials: expected true or false, found "yes"',
        ),
        ({"cors": {"allow_origins": "*"}}, 'cors.allow_origins: expected a list, found "*"'),
        (
            {"cors": {"allow_origins": ["*"], "allow_credentials": True}},
            'cors.allow_credentials: cannot be combined with "*"; list each value',
        ),
        (
            {"runs": {"on_busy": "Reject"}},
            'runs.on_busy: expected "enqueue", "reject", "interrupt" or "rollback", found "Reject" – did you mean "reject"?',
        ),
        (
            {"runs": {"client_config": ["tags", "user_id"]}},
            "runs.client_config: user_id: set by the server, never by a client",
        ),
        ({"runs": {"history_limit": 0}}, "runs.history_limit: expected at least 1, found 0"),
        ({"agents": {"a": "b:c"}}, 'agents: expected either "agent" or "agents", found both'),
        ({"agent": None}, 'agent: is missing; write e.g. "agent": "graph.react:app"'),
        (
            {"agent": "graph/react.py:app"},
            'agent: expected "package.module:attribute", found "graph/react.py:app"',
        ),
        ({"agent": ["a:b"]}, "agent: expected a string, found a list"),
        ({"agent": {"a": 1}}, "agent: expected a string, found an object"),
        ({"agent": ""}, 'agent: expected "package.module:attribute", found an empty string'),
        ({"agent": "x" * 80}, 'agent: expected "package.module:attribute", found a string'),
        ({"store": "store"}, 'store: expected "package.module:attribute", found "store"'),
        ({"env": " "}, 'env: expected some text, found " "'),
        ({"env": 1}, "env: expected a string, found 1"),
        (
            {"database": "postgresql+psycopg://alice:hunter2@db/x"},
            'database: expected "postgresql://…", without the name of a driver',
        ),
        (
            {"database": "mysql://alice:hunter2@db/x"},
            (
                'database: expected "sqlite:///path/to/file.db" or '
                '"postgresql://user:password@host/database", found "mysql://alice:********@db/x"'
            ),
        ),
        (
            {"database": "postgresql://"},
            (
                'database: expected "sqlite:///path/to/file.db" or '
                '"postgresql://user:password@host/database", found "postgresql://"'
            ),
        ),
        (
            {"database": "postgresql://alice:hun/ter2@db/x"},
            'database: in a user and a password "@" is written %40, "/" %2F and ":" %3A',
        ),
        (
            {"database": "sqlite:///:memory:"},
            "database: a database in memory would lose every thread at a restart; name a file",
        ),
        (
            {"database": "sqlite:///a.db?mode=ro"},
            "database: options after the file name are not supported",
        ),
        (
            {"database": "a.db"},
            'database: expected "sqlite:///path/to/file.db" or "postgresql://user:password@host/database", found "a.db"',
        ),
        (
            {"database": "sqlite:///data/"},
            'database: expected "sqlite:///path/to/file.db" or "postgresql://user:password@host/database", found "sqlite:///data/"',
        ),
        (
            {"public_url": "https://alice:hunter2@example.com"},
            "public_url: the address must not contain a user, a query or a fragment",
        ),
    ],
)
def test_a_mistake_is_explained_in_one_line(
    problems: Problems, content: dict[str, Any], line: str
) -> None:
    assert list(problems(content)) == [f"agentflow.json: {line}"]


def test_no_agents_at_all_is_refused(problems: Problems) -> None:
    lines = problems('{"agents": {}}')
    assert list(lines) == [
        "agentflow.json: agents: expected at least one agent, found an empty object"
    ]


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "ä", "a.b"])
def test_an_agent_has_a_plain_name(problems: Problems, name: str) -> None:
    (line,) = problems(json.dumps({"agents": {name: "a:b"}}))
    assert "expected a name of 1 to 64 letters, digits, - and _" in line


@pytest.mark.parametrize(
    "origin",
    ["example.com", "https://example.com/", "https://Example.com", "null", "https://*.x.com", ""],
)
def test_an_origin_is_what_a_browser_sends(problems: Problems, origin: str) -> None:
    (line,) = problems({"cors": {"allow_origins": [origin]}})
    assert line.startswith("agentflow.json: cors.allow_origins[0]: expected an origin")


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://example.com",
        "http://localhost:3000",
        "http://[::1]:5173",
        "capacitor://localhost",
    ],
)
def test_usual_origins_are_accepted(load: Load, origin: str) -> None:
    assert load({"cors": {"allow_origins": [origin]}}).cors.allow_origins == [origin]


def test_cors_methods_and_headers_are_names(problems: Problems) -> None:
    lines = problems({"cors": {"allow_methods": ["get"], "allow_headers": ["X Y"]}})
    assert len(lines) == 2


@pytest.mark.parametrize(
    "url", ["example.com", "ftp://x", "https://", "http://x:99999", "http://[", "http://a b", "x"]
)
def test_a_public_url_is_an_http_address(problems: Problems, url: str) -> None:
    (line,) = problems({"public_url": url})
    assert line.startswith("agentflow.json: public_url: expected an address like")


def test_a_public_url_has_no_slash_at_its_end(load: Load) -> None:
    assert load({"public_url": "https://x.example/api/"}).public_url == "https://x.example/api"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1, column 1: the file is empty"),
        ('{\n  "agent": "a:b",\n}', "line 3, column 1: a comma before the end"),
        ("{\n  // agent\n}", "line 2, column 3: JSON has no comments"),
        ("{'agent': 1}", "line 1, column 2: JSON wants double quotes"),
        ('{"agent": "a:b" "env": 1}', "line 1, column 17: expecting ',' delimiter"),
        ("[]", "expected an object, found an empty list"),
        ("null", "expected an object, found null"),
        ('{"agent": "a:b", "agent": "c:d"}', "agent: written twice in one object"),
    ],
)
def test_json_errors_say_where(problems: Problems, text: str, line: str) -> None:
    (found,) = problems(text)
    # The texts of some syntax errors differ between versions of Python; the place does not.
    assert found.startswith("agentflow.json: " + line) or "trailing comma" in found


@pytest.mark.parametrize(
    "text",
    [
        '{"limits": {"body_timeout": NaN}}',
        '{"limits": {"body_timeout": 1e999}}',
        '{"agent": "\\ud800"}',
        '{"limits": {"json_depth": ' + "9" * 5000 + "}}",
        '{"x": ' * 3000 + "1" + "}" * 3000,
        '{"x": ' + "[" * 400 + "]" * 400 + "}",
    ],
)
def test_json_that_is_none_is_refused(problems: Problems, text: str) -> None:
    (line,) = problems(text)
    assert len(line) < 200


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"agent": "\xe9"}')
    for name, words in [
        ("gone.json", "there is no such file (agentflow init makes a project)"),
        ("latin.json", "is not UTF-8 (byte 12)"),
        (".", "expected a file, found a folder"),
        ("a\0b", "cannot be read: not a file name"),
        ("latin.json/x", "cannot be read: Not a directory"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / name)
        (line,) = caught.value.problems
        assert words in line
        assert "\n" not in line


def test_the_file_is_found_by_variable_then_in_the_current_folder(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write({})
    other = tmp_path / "other.json"
    other.write_text('{"agent": "o:p"}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_config().path == file
    monkeypatch.setenv("AGENTFLOW_CONFIG", "other.json")
    assert load_config().path == other
    assert load_config(str(file)).agents == {"agent": "graph.react:app"}


def test_the_folder_goes_first_on_the_path_once(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load({})
    monkeypatch.setattr(sys, "path", ["/somewhere"])
    use_folder(config)
    use_folder(config)
    assert sys.path == [str(config.folder), "/somewhere"]


def test_reading_leaves_the_environment_alone(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FROM_DOTENV=1\n", encoding="utf-8")
    file = write({"env": ".env"})
    read_config(file)
    assert "FROM_DOTENV" not in os.environ
    load_config(file)
    assert os.environ["FROM_DOTENV"] == "1"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://alice:hid@den@db/x",
        "postgresql://alice:hid@den/hidden@db:1/x",
        "postgresql://alice:hidden/x@db",
        "postgresql://alice:hidden/x",
    ],
)
def test_a_database_url_that_could_show_its_password_is_refused_without_it(
    problems: Problems, url: str
) -> None:
    (line,) = problems({"agent": "a:b", "database": url})
    assert "%40" in line
    assert "hid" not in line
    assert "den" not in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://alice:hidden@db/x",
        "postgres://alice@db:5432",
        "postgresql:///x?host=/tmp&user=a@b",
        "postgresql://alice:a:?#[]b@db:1,[::1]:2/x?sslmode=require",
        "postgresql://alice:p%40ss%2Fw@%2Frun%2Fpostgres/x",
    ],
)
def test_every_other_database_url_is_accepted(load: Load, url: str) -> None:
    assert load({"database": url}).database == url
