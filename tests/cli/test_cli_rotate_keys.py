"""`agentflow auth rotate-keys`: which key signs, and which ones still verify."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from agentflow_server.web.token_server import PUBLISHED_SECONDS

LIFETIME = 600


@pytest.fixture
def folder(project, database, monkeypatch):
    monkeypatch.setenv("AGENTFLOW_DATABASE", database)
    audit = {"audit": {"sink": "file", "path": "audit.log"}}
    server = {"access_token_lifetime": LIFETIME}
    return project(token_server=server, observability=audit)


@pytest.fixture
def list_keys(use_store):
    return lambda: use_store(lambda store: store.list_signing_keys())


def acts(folder):
    lines = (folder / "audit.log").read_text(encoding="utf-8").splitlines()
    return [(line["action"], line["details"]["key_id"]) for line in map(json.loads, lines)]


def test_the_first_key_signs_at_once(folder, run, list_keys):
    assert run("auth", "rotate-keys").exit_code == 0
    (key,) = list_keys()
    assert key.signs_from == key.created_at
    assert key.retires_at is None


def test_the_next_one_is_known_to_everybody_before_it_signs(folder, run, list_keys):
    for _ in range(2):
        rotated = run("auth", "rotate-keys")
        assert rotated.exit_code == 0
    old, new = list_keys()
    assert new.kid in rotated.stderr
    assert new.signs_from - new.created_at > timedelta(seconds=PUBLISHED_SECONDS)
    # A token that the old one signs at the last moment is good until it expires.
    assert old.retires_at > new.signs_from + timedelta(seconds=LIFETIME)
    assert new.retires_at is None
    assert acts(folder)[-1] == ("signing_key.add", new.kid)


def test_keys_that_have_leaked_are_removed_at_once(folder, run, list_keys):
    run("auth", "rotate-keys")
    (leaked,) = list_keys()
    rotated = run("auth", "rotate-keys", "--now")
    assert rotated.exit_code == 0
    (key,) = list_keys()
    assert key.kid != leaked.kid
    assert key.signs_from <= datetime.now(UTC)
    assert acts(folder)[-2:] == [("signing_key.add", key.kid), ("signing_key.remove", leaked.kid)]


def test_a_private_key_is_never_shown(folder, run):
    shown = [run("auth", "rotate-keys", *options) for options in ([], [], ["--now"])]
    assert "PRIVATE KEY" not in "".join(result.output for result in shown)
    assert "PRIVATE KEY" not in (folder / "audit.log").read_text(encoding="utf-8")


def test_without_a_token_server_there_is_nothing_to_rotate(project, run):
    project(auth="api_key")
    refused = run("auth", "rotate-keys")
    assert refused.exit_code == 2
    assert 'no "token_server"' in refused.stderr
