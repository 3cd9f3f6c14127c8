"""Variables, the dotenv file, flags, and which of them wins."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.config import Config, CustomAuthConfig, unknown_variables

Load = Callable[..., Config]
Problems = Callable[..., Sequence[str]]
LEVELS = '"debug", "info", "warning", "error" or "critical"'


def options(config: Config) -> dict[str, Any]:
    (method,) = config.auth
    assert isinstance(method, CustomAuthConfig)
    return method.options


def custom(**values: Any) -> dict[str, Any]:
    return {"auth": {"method": "custom", "path": "auth.custom:Mine", "options": values}}


def test_variables_expand_in_every_string(load: Load) -> None:
    os.environ.update(NAME="x", EMPTY="", NESTED="${NAME}")
    content = custom(
        whole="${NAME}",
        part="a-${NAME}-b",
        default="${GONE:-fallback}",
        empty_default="${GONE:-}",
        emptied="${EMPTY:-fallback}",
        empty="${EMPTY}",
        once="${NESTED}",
        escaped="$${NAME} $$x $5",
        deep=[{"x": "${NAME}"}, 1, None],
    )
    assert options(load(content)) == {
        "whole": "x",
        "part": "a-x-b",
        "default": "fallback",
        "empty_default": "",
        "emptied": "fallback",
        "empty": "",
        "once": "${NAME}",
        "escaped": "${NAME} $$x $5",
        "deep": [{"x": "x"}, 1, None],
    }


@pytest.mark.parametrize("text", ["${", "${1X}", "${X-y}", "${X:?no}", "a ${X b"])
def test_a_malformed_variable_is_a_problem(problems: Problems, text: str) -> None:
    (line,) = problems(custom(x=text))
    assert line.startswith("agentflow.json: auth.options.x: expected ${NAME} or ${NAME:-default}")


def test_an_unset_variable_is_one_problem(problems: Problems) -> None:
    assert list(problems({"agent": "${AGENT}", "env": "${ENV_FILE}"})) == [
        "agentflow.json: env: the environment variable ENV_FILE is not set",
        "agentflow.json: agent: the environment variable AGENT is not set",
    ]


def test_what_came_from_a_variable_is_not_repeated(problems: Problems) -> None:
    os.environ["MYSTERY"] = "hunter2"
    (line,) = problems({"public_url": "${MYSTERY}"})
    assert line == (
        'agentflow.json: public_url: expected an address like "https://agents.example.com", '
        "found a string"
    )


def test_the_dotenv_file_reaches_the_config_and_the_agent(load: Load, tmp_path: Path) -> None:
    (tmp_path / "prod.env").write_text(
        'HOST_PART=db\nexport DSN="x://${HOST_PART}"\nBARE\nAGENTFLOW_PORT=8111\n', encoding="utf-8"
    )
    config = load({"env": "prod.env", **custom(dsn="${DSN}")})
    assert options(config) == {"dsn": "x://db"}
    assert config.port == 8111
    assert config.env == "prod.env"
    assert os.environ["DSN"] == "x://db"
    assert "BARE" not in os.environ


def test_a_real_variable_beats_the_dotenv_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "A=file\nB=${A}\nAGENTFLOW_PORT=8111\nAGENTFLOW_HOST=127.0.0.9\n", encoding="utf-8"
    )
    os.environ.update(A="real", AGENTFLOW_PORT="8222")
    config = load({"env": ".env", **custom(a="${A}", b="${B}")})
    assert options(config) == {"a": "real", "b": "real"}
    assert (config.port, config.host) == (8222, "127.0.0.9")
    assert os.environ["A"] == "real"


def test_with_a_problem_nothing_of_the_dotenv_file_is_set(
    problems: Problems, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("FROM_DOTENV=1\n", encoding="utf-8")
    problems({"env": ".env", "auht": 1})
    assert "FROM_DOTENV" not in os.environ


def test_a_dotenv_file_must_exist_and_make_sense(problems: Problems, tmp_path: Path) -> None:
    (line,) = problems({"env": "gone.env"})
    assert line == f"agentflow.json: env: {tmp_path / 'gone.env'}: there is no such file"
    (tmp_path / "bad.env").write_text("A=1\nB=2\n=3\n", encoding="utf-8")
    lines = problems({"env": "bad.env"})
    assert f"agentflow.json: env: {tmp_path / 'bad.env'}: line 3: expected NAME=value" in lines
    (tmp_path / "nul.env").write_bytes(b"A=1\0\n")
    (line,) = problems({"env": "nul.env"})
    assert line.endswith("contains NUL")


def test_flag_beats_environment_beats_file_beats_default(load: Load, tmp_path: Path) -> None:
    content = {"database": "sqlite:///file.db"}
    assert load(content).database_path == tmp_path / "file.db"
    os.environ["AGENTFLOW_DATABASE"] = "sqlite:////var/lib/env.db"
    assert load(content).database_path == Path("/var/lib/env.db")
    config = load(content, database="sqlite:///flag.db", port=0, host=None, log_level="debug")
    assert config.database_path == tmp_path / "flag.db"
    assert (config.port, config.log_level) == (0, "debug")


def test_bad_variables_and_flags_are_named(problems: Problems) -> None:
    os.environ.update(
        AGENTFLOW_PORT="many", AGENTFLOW_LOG_LEVEL="INFO", AGENTFLOW_HOST="", AGENTFLOW_DATABASE="x"
    )
    lines = problems({}, host="http://x", log_level="loud")
    assert [line.partition(" found ")[0] for line in lines] == [
        '--host: expected a host name or address like "127.0.0.1",',
        f"--log-level: expected {LEVELS},",
        'environment: AGENTFLOW_HOST: expected a host name or address like "127.0.0.1",',
        "environment: AGENTFLOW_PORT: expected a whole number,",
        'environment: AGENTFLOW_DATABASE: expected "sqlite:///path/to/file.db" or "postgresql://user:password@host/database",',
        f"environment: AGENTFLOW_LOG_LEVEL: expected {LEVELS},",
    ]
    assert lines[3].endswith('found "many"')
    assert lines[5].endswith('found "INFO" – did you mean "info"?')


def test_a_variable_that_only_looks_like_ours_is_told(load: Load) -> None:
    os.environ |= {
        "AGENTFLOW_LOGLEVEL": "debug",
        "AGENTFLOW_ZEBRA": "1",
        "AGENTFLOW_AUDIT_KEY": "k",
        "AGENTFLOW_CONFIG": "",
        "AGENTFLOW_DSN": "named in the file",
        "AGENTFLOW_SERVICE_HOST": "10.0.0.1",
        "AGENTFLOW_PORT_8000_TCP_ADDR": "10.0.0.1",
        "OTHER": "1",
    }
    config = load(custom(dsn="${AGENTFLOW_DSN}"))
    assert unknown_variables(config) == [
        ('environment: AGENTFLOW_LOGLEVEL: unknown variable – did you mean "AGENTFLOW_LOG_LEVEL"?'),
        "environment: AGENTFLOW_ZEBRA: unknown variable",
    ]
