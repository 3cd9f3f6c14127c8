"""`agentflow init`: what it writes, and what it never touches."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
import typer
from dotenv import dotenv_values
from typer.testing import CliRunner

from agentflow_server.cli.init import init
from agentflow_server.config import read_config
from agentflow_server.config.schema import SCHEMA_FILE

ALL = ["none", "jwt", "custom", "api_key", "oauth", "firebase", "database", "mfa"]
CUSTOM = ALL[2:]
COMMON = {
    ".env",
    ".env.example",
    ".gitignore",
    "README.md",
    "agentflow.json",
    "agentflow.schema.json",
    "conftest.py",
    "graph/__init__.py",
    "graph/react.py",
    "requirements.txt",
    "tests/test_agent.py",
}
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(rich_markup_mode=None)
    app.command()(init)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("auth", ALL)
def test_a_project_is_complete(run_init, tmp_path, auth):
    result = run_init("shop", "--auth", auth)
    assert result.exit_code == 0, result.output
    own = {"auth/__init__.py", f"auth/{auth}.py"} if auth in CUSTOM else set()
    assert list_files(tmp_path / "shop") == COMMON | own
    assert (tmp_path / "shop/README.md").read_text().startswith("# shop\n")
    assert "cd shop" in result.output


@pytest.mark.parametrize("auth", CUSTOM)
def test_the_backend_is_the_one_of_the_repository(run_init, tmp_path, auth):
    run_init("--auth", auth)
    assert (tmp_path / f"auth/{auth}.py").read_text() == (CHECKOUT / f"auth/{auth}.py").read_text()


@pytest.mark.parametrize("auth", ALL)
def test_no_placeholder_is_left(run_init, tmp_path, auth):
    run_init("--auth", auth)
    config = (tmp_path / "agentflow.json").read_text()
    assert json.loads(config)["agent"] == "graph.react:app"
    assert "$auth" not in config
    assert "$${" not in config
    for name in (".env", ".env.example", "requirements.txt", "README.md"):
        text = (tmp_path / name).read_text().replace("$TOKEN", "").replace("$(", "")
        assert "$" not in text, name


def test_an_editor_finds_the_schema_of_the_configuration(run_init, tmp_path):
    run_init()
    schema = json.loads((tmp_path / "agentflow.json").read_text())["$schema"]
    assert (tmp_path / schema).read_text() == SCHEMA_FILE.read_text()


@pytest.mark.parametrize("auth", ALL)
def test_the_configuration_is_valid(run_init, tmp_path, auth):
    run_init("--auth", auth)
    config = read_config(tmp_path / "agentflow.json")
    assert [one.method for one in config.auth] == ["custom" if auth in CUSTOM else auth]
    assert config.auth_written


def test_without_a_word_everybody_may_use_it(run_init, tmp_path):
    assert run_init().exit_code == 0
    assert json.loads((tmp_path / "agentflow.json").read_text())["auth"] == "none"


@pytest.mark.parametrize("auth", ["jwt", "custom", "api_key", "database", "mfa"])
def test_secrets_are_fresh_private_and_nowhere_else(run_init, tmp_path, auth):
    run_init("a", "--auth", auth)
    run_init("b", "--auth", auth)
    first, second = (dotenv_values(tmp_path / name / ".env") for name in "ab")
    assert first.keys() == second.keys() == dotenv_values(tmp_path / "a/.env.example").keys()
    name = next(iter(first))
    assert len(first[name]) >= 43
    assert first[name] != second[name]
    assert dotenv_values(tmp_path / "a/.env.example")[name] == ""
    assert stat.S_IMODE((tmp_path / "a/.env").stat().st_mode) == 0o600
    for file in list_files(tmp_path / "a") - {".env"}:
        assert first[name] not in (tmp_path / "a" / file).read_text()


def test_an_env_file_is_private_whatever_the_umask(run_init, tmp_path):
    before = os.umask(0)
    try:
        run_init("--auth", "jwt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_git_ignores_what_is_secret_or_local(run_init, tmp_path):
    run_init()
    assert {".env", ".agentflow/"} <= set((tmp_path / ".gitignore").read_text().splitlines())


def test_the_api_key_is_shown_once_and_fits_its_entry(run_init, tmp_path):
    output = run_init("--auth", "api_key").output
    key = output.partition("shown only now: ")[2].split()[0]
    keys = json.loads(dotenv_values(tmp_path / ".env")["API_KEYS"])
    assert list(keys) == [hashlib.sha256(key.encode()).hexdigest()]
    assert key not in "".join((tmp_path / name).read_text() for name in list_files(tmp_path))


def test_requirements_name_the_extra_that_is_needed(run_init, tmp_path):
    run_init("--auth", "mfa")
    assert (tmp_path / "requirements.txt").read_text().startswith("agentflow-server[mfa]>=")


@pytest.mark.parametrize("taken", ["README.md", ".env", "graph/react.py", "auth/mfa.py"])
def test_a_file_that_exists_stops_everything(run_init, tmp_path, taken):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    result = run_init("--auth", "mfa")
    assert result.exit_code == 2
    assert result.stderr == f".: nothing was written, these exist already: {taken}\n"
    assert list_files(tmp_path) == {taken}
    assert (tmp_path / taken).read_text() == "mine"


def test_other_files_are_left_alone(run_init, tmp_path):
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph/mine.py").write_text("mine")
    assert run_init().exit_code == 0
    assert (tmp_path / "graph/mine.py").read_text() == "mine"


def test_everything_in_the_way_is_named_at_once(run_init, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "graph").write_text("a file, and no folder")
    (tmp_path / "agentflow.json").symlink_to(tmp_path / "nowhere")
    result = run_init()
    assert result.exit_code == 2
    assert result.stderr.endswith("these exist already: README.md, agentflow.json, graph\n")
    assert not (tmp_path / "nowhere").exists()


def test_a_second_time_changes_nothing(run_init, tmp_path):
    run_init()
    before = {name: (tmp_path / name).read_bytes() for name in list_files(tmp_path)}
    assert run_init("--auth", "jwt").exit_code == 2
    assert {name: (tmp_path / name).read_bytes() for name in list_files(tmp_path)} == before


def test_a_folder_that_is_a_file_is_named(run_init, tmp_path):
    (tmp_path / "shop").write_text("mine")
    result = run_init("shop")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "shop" in result.stderr


def test_a_folder_that_cannot_be_made_is_one_line(run_init):
    result = run_init("/proc/no-such-place")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("/proc/no-such-place")


def test_an_unknown_method_lists_the_known_ones(run_init, tmp_path):
    result = run_init("--auth", "saml")
    assert result.exit_code == 2
    assert "'mfa'" in result.stderr
    assert list_files(tmp_path) == set()
