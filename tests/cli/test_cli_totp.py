"""`agentflow users totp`: a second factor that is shown once."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest

from agentflow_server.users.totp import find_step

PASSWORD = "tea kettle sings at noon"


@pytest.fixture
def folder(project, database, monkeypatch) -> Path:
    monkeypatch.setenv("AGENTFLOW_DATABASE", database)
    audit = {"audit": {"sink": "file", "path": "audit.log"}}
    return project(auth="api_key", observability=audit)


@pytest.fixture
def alice(folder, run):
    assert run("users", "add", "alice", "--generate").exit_code == 0
    return "alice"


@pytest.fixture
def find_alice(use_store):
    """The user and her secrets, as the login reads them."""
    return lambda: use_store(lambda store: store.find_user_by_name("alice"))


def acts(folder):
    lines = (folder / "audit.log").read_text(encoding="utf-8").splitlines()
    return [(line["action"], line["details"]["username"]) for line in map(json.loads, lines)]


def test_the_address_that_is_printed_makes_codes_that_the_login_accepts(
    folder, run, alice, find_alice
):
    printed = run("users", "totp", alice)
    assert printed.exit_code == 0
    (uri,) = printed.stdout.splitlines()
    assert uri.startswith("otpauth://totp/agentflow:alice?")
    user, secrets = find_alice()
    assert user.has_totp
    moment = 1_700_000_000
    code = pyotp.parse_uri(uri).at(moment)
    assert find_step(secrets.totp_secret, code, moment) == moment // 30
    secret = parse_qs(urlsplit(uri).query)["secret"][0]
    assert secret not in printed.stderr
    assert secret not in (folder / "audit.log").read_text(encoding="utf-8")
    assert acts(folder)[-1] == ("user.set_totp", "alice")


def test_another_one_replaces_it_and_it_can_be_taken_away(folder, run, alice, find_alice):
    first, second = (run("users", "totp", alice).stdout for _ in range(2))
    assert first != second
    removed = run("users", "totp", alice, "--remove")
    assert (removed.exit_code, removed.stdout) == (0, "")
    user, secrets = find_alice()
    assert (user.has_totp, secrets.totp_secret) == (False, None)
    assert acts(folder)[-1] == ("user.remove_totp", "alice")


@pytest.mark.parametrize("options", [[], ["--remove"]])
def test_who_is_not_there_gets_none(folder, run, options):
    refused = run("users", "totp", "nobody", *options)
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert "There is no such user" in refused.stderr
