"""The commands that serve nothing."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import Result

from agentflow_server import __version__
from agentflow_server.auth.keys import find_weakness, load_key
from agentflow_server.config import JwtConfig, StaticKeys, load_config

Run = Callable[..., Result]
Project = Callable[..., Path]


def test_help_lists_the_commands(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("serve", "init", "check", "show", "token", "secret", "keys", "version"):
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version_is_one_line(run: Run, arguments: Sequence[str]) -> None:
    assert run(*arguments).stdout == f"agentflow-server {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "--port", "x"], ["serve", "--port", "70000"], ["token"]]
)
def test_wrong_arguments_exit_with_2(run: Run, arguments: Sequence[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("nonsense", "agentflow: no such command 'nonsense' – see agentflow --help"),
        ("--nonsense", "agentflow: no such option: --nonsense – see agentflow --help"),
        ("token", "agentflow token: missing option '--user-id' – see agentflow token --help"),
        (
            "token --user-id",
            "agentflow: option '--user-id' requires an argument – see agentflow --help",
        ),
        (
            "keys --algorithm X",
            (
                "agentflow keys: invalid value for '--algorithm': 'X' is not one of 'RS256', "
                "'RS384', 'RS512', 'ES256', 'ES384', 'ES512' – see agentflow keys --help"
            ),
        ),
        (
            "api-keys list --frob",
            "agentflow api-keys list: no such option: --frob – see agentflow api-keys list --help",
        ),
    ],
)
def test_wrong_arguments_are_one_line(run: Run, arguments: str, line: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [line]


def test_a_group_without_a_command_shows_its_help(run: Run) -> None:
    result = run("api-keys")
    assert result.exit_code == 2
    assert "  create " in result.output


@pytest.mark.parametrize("command", [["check"], ["serve", "--port", "0"]])
def test_what_is_found_while_loading_names_the_file_too(
    start: Callable[..., Any], project: Project, command: Sequence[str]
) -> None:
    nowhere = {"method": "custom", "path": "project_nowhere:Auth"}
    project(auth=nowhere, checkpointer="project_agent:app")
    running = start(*command)
    assert running.wait() == 2
    first, second = running.stderr
    assert first.startswith("agentflow.json: auth.path: there is no module 'project_nowhere'")
    assert second.startswith("agentflow.json: checkpointer: ")


@pytest.mark.parametrize("command", [["check"], ["serve", "--port", "0"]])
def test_what_is_found_while_opening_names_the_file_too(
    start: Callable[..., Any], project: Project, command: Sequence[str]
) -> None:
    folder = project(observability={"audit": {"sink": "file", "path": "audit.log"}})
    (folder / "audit.log").write_text("precious\n", encoding="utf-8")
    running = start(*command)
    assert running.wait() == 2
    (line,) = running.stderr
    assert line.startswith("agentflow.json: observability.audit.path: ")


def test_a_misspelt_variable_is_told_when_checking_and_serving(
    run: Run, project: Project, start: Callable[..., Any]
) -> None:
    folder = project(env=".env")
    (folder / ".env").write_text("AGENTFLOW_PROT=80\n", encoding="utf-8")
    warning = 'environment: AGENTFLOW_PROT: unknown variable – did you mean "AGENTFLOW_PORT"?'
    result = run("check")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [warning]
    running = start("serve", "--port", "0")
    assert "WARNING" in running.wait_for(warning)
    running.wait_for_url()
    assert running.stop() == 0


def test_help_waits_for_no_framework() -> None:
    code = (
        "import sys, agentflow_server.__main__;"
        "print([m for m in ('fastapi', 'pydantic', 'uvicorn', 'jwt', 'rich') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_secret_is_strong_enough_for_every_algorithm(run: Run) -> None:
    first, second = (run("secret").stdout.strip() for _ in range(2))
    assert first != second
    assert find_weakness(first.encode(), "HS512") is None


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "RS256"])
def test_a_key_pair_works_as_printed(run: Run, project: Project, algorithm: str) -> None:
    folder = project(auth="jwt", env=".env")
    result = run("keys", "--algorithm", algorithm, "--out", "keys/deep")
    assert result.exit_code == 0
    private = folder / "keys/deep/jwt-private.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_text(encoding="utf-8") not in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("JWT_")]
    (folder / ".env").write_text("\n".join(lines), encoding="utf-8")

    token = run("token", "--user-id", "alice", "--key", str(private)).stdout.strip()
    (method,) = load_config().auth
    assert isinstance(method, JwtConfig)
    assert isinstance(method.source, StaticKeys)
    (configured,) = method.source.keys
    key = load_key(configured.material.get_secret_value(), algorithm).material
    assert jwt.decode(token, key, algorithms=[algorithm])["user_id"] == "alice"  # type: ignore[arg-type]


def test_keys_never_overwrite(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jwt-public.pem").write_text("mine", encoding="utf-8")
    result = run("keys", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "jwt-public.pem: exists already" in result.stderr
    assert (tmp_path / "jwt-public.pem").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "jwt-private.pem").exists()


def test_keys_cannot_be_written_under_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = run("keys", "--out", str(tmp_path / "file" / "below"))
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_r8_show_prints_json_without_secrets(run: Run, project: Project, secret: str) -> None:
    project(auth="jwt")
    os.environ["JWT_SECRET_KEY"] = secret
    result = run("show", "--port", "9999")
    shown = json.loads(result.stdout)
    (key,) = shown["auth"]["source"]["keys"]
    assert (key["name"], key["material"]) == ("JWT_SECRET_KEY", "********")
    assert shown["port"] == 9999
    assert secret not in result.output


@pytest.mark.parametrize("command", ["show", "check", "serve", "token --user-id alice"])
def test_every_problem_of_the_config_is_a_line_on_stderr(
    run: Run, project: Project, command: str
) -> None:
    project(auht="jwt", port=1)
    result = run(*command.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        'agentflow.json: auht: unknown key – did you mean "auth"?',
        "agentflow.json: port: unknown key – set it with --port or AGENTFLOW_PORT",
    ]


def test_check_reports_what_it_loaded(run: Run, project: Project) -> None:
    folder = project()
    result = run("check")
    assert result.exit_code == 0
    assert "agent (project_agent:app)" in result.stdout
    assert "none: everybody may use this server" in result.stdout
    assert str(folder / ".agentflow/agentflow.db") in result.stdout
    assert result.stderr == ""


def test_check_warns_about_an_open_server(run: Run, project: Project) -> None:
    project(auth=None)
    result = run("check", "--host", "0.0.0.0")
    assert result.exit_code == 0
    assert "everybody may use this server" in result.stderr


@pytest.mark.parametrize("command", ["check", "serve"])
def test_r6_an_open_server_without_auth_is_refused(
    run: Run, project: Project, command: str
) -> None:
    project()
    result = run(command, "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert result.stderr.startswith("agentflow.json: auth: is missing, and 0.0.0.0")


def test_check_finds_a_missing_agent(run: Run, project: Project) -> None:
    project(agent="x = 1\n")
    result = run("check")
    assert result.exit_code == 2
    assert "'project_agent' has no 'app'" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_finds_a_database_that_does_not_open(run: Run, project: Project) -> None:
    folder = project()
    (folder / "data.db").mkdir()
    result = run("check", "--database", "sqlite:///data.db")
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("agent", "wanted"),
    [
        ("import os\nraise ValueError('my own words')\n", "project_agent.py, line 2: ValueError"),
        ("import sys\nsys.exit(0)\n", "project_agent.py, line 2: SystemExit"),
        ("import gone_module\n", "project_agent.py, line 1: ModuleNotFoundError"),
        ("def app(:\n", "SyntaxError"),
    ],
)
def test_the_traceback_of_the_users_module_is_his_own(
    run: Run, project: Project, agent: str, wanted: str
) -> None:
    project(agent=agent)
    result = run("check")
    assert result.exit_code == 2
    assert f"{wanted} while loading what agentflow.json names" in result.stderr.splitlines()[-1]
    assert "project_agent.py" in result.stderr
    assert "agentflow_server" not in result.stderr


def test_check_beside_a_running_server_says_that_the_database_is_in_use(tmp_path, monkeypatch):
    import fcntl

    from typer.testing import CliRunner

    from agentflow_server.cli.main import app

    (tmp_path / "agent_of_check.py").write_text("def app(messages, config):\n    return 'x'\n")
    config = tmp_path / "agentflow.json"
    config.write_text('{"agent": "agent_of_check:app", "auth": null, "database": "sqlite:///a.db"}')
    monkeypatch.syspath_prepend(str(tmp_path))
    with (tmp_path / "a.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert "in use by a running server" in done.output


def test_r7_an_auth_module_that_raises_shows_the_users_line(tmp_path):
    import subprocess
    import sys

    (tmp_path / "boom.py").write_text("def fail():\n    return 1 / 0\n\nfail()\n")
    (tmp_path / "agentic.py").write_text("def app(messages, config):\n    return 'x'\n")
    (tmp_path / "agentflow.json").write_text(
        '{"agent": "agentic:app", "auth": {"method": "custom", "path": "boom:Auth"}}'
    )
    done = subprocess.run(
        [sys.executable, "-m", "agentflow_server", "check"], cwd=tmp_path, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'boom.py", line 2' in done.stderr
    assert "return 1 / 0" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "agentflow.json: auth.path: importing 'boom:Auth' failed"
    )
