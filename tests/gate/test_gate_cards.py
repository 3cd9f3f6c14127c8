"""Cards in files and variables: what is one, and what is refused before anybody is asked."""

import json
import os

import pytest

from agentflow_server import AuthCard
from agentflow_server.gate import BadCard, CardNotFound

CONTENT = {"api_url": "http://localhost:8000/verify-token", "token": "a-token"}


@pytest.fixture
def write(tmp_path):
    def write(content, mode=0o600):
        path = tmp_path / "secret.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)
        return path

    return write


def test_a_card_is_read_from_its_file(write):
    card = AuthCard.from_config(write(CONTENT))
    assert card.api_url == "http://localhost:8000/verify-token"


def test_the_default_file_is_the_one_of_the_guide(write, tmp_path, monkeypatch):
    (tmp_path / "authen").mkdir()
    write(CONTENT).rename(tmp_path / "authen" / "secret.json")
    monkeypatch.chdir(tmp_path)
    assert AuthCard.from_config().api_url == CONTENT["api_url"]


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(CardNotFound) as caught:
        AuthCard.from_config(tmp_path / "none.json")
    assert str(tmp_path / "none.json") in str(caught.value)
    assert "agentflow auth card" in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="there are no such modes")
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644])
def test_a_file_that_others_can_read_is_refused(write, mode):
    with pytest.raises(BadCard, match="others can read it"):
        AuthCard.from_config(write(CONTENT, mode))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "not valid JSON"),
        ("[]", "expected"),
        ('{"api_url": "http://localhost:8000"}', "expected"),
        ('{"api_url": "http://localhost:8000", "token": 5}', "expected"),
        ('{"token": "a", "token": "b", "api_url": "http://localhost:8000"}', "member"),
        (CONTENT | {"secret_key": "s3cret-value", "password": "s3cret-value"}, "password, secret"),
        (CONTENT | {"token": ""}, "token: "),
        (CONTENT | {"token": "a b"}, "token: "),
        (CONTENT | {"token": "a\r\nX: y"}, "token: "),
        (CONTENT | {"token": "x" * 70_000}, "at most"),
    ],
)
def test_what_is_no_card_is_refused_without_showing_it(write, content, told):
    path = write(content)
    with pytest.raises(BadCard, match=told) as caught:
        AuthCard.from_config(path)
    assert str(caught.value).startswith(str(path))
    assert "s3cret-value" not in str(caught.value)


def test_a_folder_is_no_card(tmp_path):
    with pytest.raises(BadCard, match="cannot be read"):
        AuthCard.from_config(tmp_path)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://example.com", "https"),
        ("ftp://example.com", "expected an address"),
        ("example.com", "expected an address"),
        ("", "expected an address"),
        ("https://", "expected an address"),
        ("https://alice:pw@example.com", "user"),
        ("https://example.com/#x", "fragment"),
        ("https://example.com/?token=x", "query"),
        ("https://example.com/a b", "expected an address"),
        ("file:///etc/passwd", "expected an address"),
    ],
)
def test_no_token_is_sent_to_a_wrong_url(url, told):
    with pytest.raises(BadCard, match=told) as caught:
        AuthCard("a-token", url)
    assert str(caught.value).startswith("api_url: ")


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://example.com", "https://example.com/verify-token"),
        ("https://example.com/agent-api/", "https://example.com/agent-api/verify-token"),
        ("http://[::1]:8000/verify-token", "http://[::1]:8000/verify-token"),
        ("http://localhost:8000/verify-token/", "http://localhost:8000/verify-token"),
    ],
)
def test_the_url_is_the_servers_or_the_whole_one(url, asked):
    assert AuthCard("a-token", url).api_url == asked


def test_a_card_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("AGENTFLOW_CARD_TOKEN", "a-token")
    monkeypatch.setenv("AGENTFLOW_CARD_API_URL", "https://example.com")
    assert AuthCard.from_env().api_url == "https://example.com/verify-token"


def test_the_variable_that_is_missing_is_named():
    with pytest.raises(CardNotFound, match=r"^AGENTFLOW_CARD_API_URL: not set$"):
        AuthCard.from_env({"AGENTFLOW_CARD_TOKEN": "a-token", "AGENTFLOW_CARD_API_URL": ""})


@pytest.mark.parametrize("option", [{"timeout": 0}, {"timeout": 61}, {"cache_seconds": 61}])
def test_nobody_waits_or_believes_for_long(option):
    with pytest.raises(ValueError, match="expected"):
        AuthCard("a-token", "https://example.com", **option)


def test_a_card_never_shows_its_token():
    assert repr(AuthCard("a-token", "https://example.com")) == (
        "AuthCard('https://example.com/verify-token')"
    )


def test_a_saved_card_is_its_owners_alone_and_can_be_read_again(tmp_path):
    path = tmp_path / "authen" / "secret.json"
    AuthCard("a-token", "https://example.com").save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    content = {"api_url": "https://example.com/verify-token", "token": "a-token"}
    assert json.loads(path.read_text()) == content
    assert AuthCard.from_config(path).api_url == content["api_url"]


def test_a_card_takes_the_place_of_another_even_of_one_that_others_can_read(write):
    path = write(CONTENT, 0o644)
    AuthCard("new-token", "https://example.com").save(path)
    assert json.loads(path.read_text())["token"] == "new-token"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_card_is_never_replaced(write):
    path = write('{"secret_key": "of somebody"}')
    with pytest.raises(BadCard, match="is no card"):
        AuthCard("a-token", "https://example.com").save(path)
    assert path.read_text() == '{"secret_key": "of somebody"}'


def test_nothing_is_left_behind_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        AuthCard("a-token", "https://example.com").save(tmp_path / "file" / "secret.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_card_that_cannot_be_written_leaves_the_one_before(write, monkeypatch):
    path = write(CONTENT)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        AuthCard("new-token", "https://example.com").save(path)
    assert json.loads(path.read_text()) == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["secret.json"]
