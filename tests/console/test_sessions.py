"""`agentflow login`, `whoami`, `logout`, and the session between them."""

import re
import stat
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from agentflow_server.client import AgentflowClient, LoginFailed, RefreshToken, Token
from agentflow_server.console.sessions import Session


@pytest.fixture
def session(served, monkeypatch):
    """Of the real server, which is the one that is meant."""
    monkeypatch.setenv("AGENTFLOW_URL", served.url)
    return Session(served.url)


@pytest.fixture
def log_in(run, password):
    def log_in(stdin=f"{password}\n"):
        return run("login", "--user", "alice", "--password-stdin", stdin=stdin)

    return log_in


def lines_of(result):
    return result.stderr.splitlines()


def test_a_password_becomes_a_session_that_the_other_commands_use(
    run, session, log_in, served, password
):
    result = log_in()
    assert (result.exit_code, result.stdout) == (0, "")
    assert lines_of(result) == [f"Logged in at {served.url} as alice"]
    assert stat.S_IMODE(session.path.stat().st_mode) == 0o600
    assert password not in session.path.read_text()
    assert run("chat", stdin="hi").stdout == "echo hi\n"
    told = run("whoami").stdout
    assert re.search(r"^user     alice$", told, re.M)
    assert re.search(r"^scopes   \(none\)$", told, re.M)
    assert re.search(r"^expires  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", told, re.M)


def test_a_session_renews_itself_and_keeps_the_new_refresh_token(run, session, log_in):
    log_in()
    old = session.find_token()
    session.save(replace(old, expires_at=0.0))
    for _ in range(2):
        assert run("whoami").exit_code == 0
    new = session.find_token()
    assert new.refresh_token != old.refresh_token
    assert new.source == old.source


def test_logging_out_revokes_the_session_and_forgets_it(run, session, log_in, served):
    log_in()
    refresh_token = session.find_token().refresh_token
    assert lines_of(run("logout")) == [f"Logged out at {served.url}"]
    assert not session.path.exists()
    login = RefreshToken(f"{served.url}/token", refresh_token, client_id="agentflow")
    with AgentflowClient(served.url, login) as client, pytest.raises(LoginFailed) as caught:
        client.get_authenticated_headers()
    assert caught.value.code == "invalid_grant"
    assert run("whoami").exit_code == 1
    assert lines_of(run("logout")) == [f"There is no session with {served.url}"]


def test_a_server_that_is_gone_does_not_keep_one_from_logging_out(run):
    session = Session("http://127.0.0.1:1")
    session.save(Token("x", refresh_token="y", source="http://127.0.0.1:1/token agentflow alice"))
    result = run("logout", "--url", "http://127.0.0.1:1")
    assert (result.exit_code, "was not told" in result.stderr) == (0, True)
    assert not session.path.exists()


def test_a_wrong_password_leaves_the_session_as_it_was(run, session, log_in):
    log_in()
    before = session.path.read_bytes()
    result = log_in("wrong horse battery\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "invalid_grant" in result.stderr
    assert len(lines_of(result)) == 1
    assert "wrong horse" not in result.output
    assert session.path.read_bytes() == before


def test_where_passwords_are_not_taken_the_browser_is_named(run, session, served):
    stdin = "correct horse\n"
    result = run("login", "--client-id", "page", "--user", "a", "--password-stdin", stdin=stdin)
    assert (result.exit_code, len(lines_of(result))) == (1, 1)
    assert result.stderr.endswith(" – it may do with --browser\n")


def test_a_password_is_asked_for_at_a_terminal_and_not_shown(terminal, session, password):
    screen = terminal("login", "--totp")
    screen.expect("Username: ")
    screen.type("alice\r")
    screen.expect("Password of alice: ")
    screen.type(f"{password}\r")
    screen.expect("One-time code: ")
    screen.type("\r")
    screen.expect("Logged in at")
    assert screen.wait() == 0
    assert password not in screen.text
    assert session.find_login().username == "alice"


def test_chat_logs_a_user_in_unless_that_is_done(terminal, session, log_in, password):
    screen = terminal("chat", "--user", "alice")
    screen.expect("Password of alice: ")
    screen.type("\x03")
    assert screen.wait() == 130
    log_in()
    screen = terminal("chat", "--user", "alice")
    screen.expect("talk at")
    screen.expect("> ")
    screen.type("\x04")
    assert screen.wait() == 0
    assert "Password" not in screen.text


def test_without_a_terminal_no_password_is_asked_for(run, session):
    result = run("login", "--user", "alice", stdin="x\n")
    assert (result.exit_code, session.path.exists()) == (1, False)
    assert "--password-stdin" in result.stderr


def test_a_token_or_an_api_key_makes_a_session_too(run, session, token):
    assert run("login", "--token-stdin", stdin=f"{token('bob')}\n").exit_code == 0
    assert run("chat", stdin="hi").stdout == "echo hi\n"
    assert re.search(r"^user id  .*bob$", run("whoami").stdout, re.M)
    assert run("logout").exit_code == 0
    assert run("chat", stdin="hi").exit_code == 1


@pytest.mark.parametrize("text", ["nonsense", "two words", "", b"\xff"])
def test_a_token_that_the_server_refuses_is_not_kept(run, session, text):
    result = run("login", "--token-stdin", stdin=text)
    assert (result.exit_code, len(lines_of(result))) == (1, 1)
    assert not session.path.exists()


def test_the_session_of_one_server_is_not_for_another(run, session, log_in, line):
    log_in()
    assert run("whoami", "--url", line.url).exit_code == 1
    assert Session(line.url).path != session.path


def test_a_session_that_others_can_read_is_not_used(run, session, log_in):
    log_in()
    session.path.chmod(0o644)
    result = run("whoami")
    assert (result.exit_code, "others can read it" in result.stderr) == (1, True)
    assert run("logout").exit_code == 1
    assert not session.path.exists()


def test_a_server_that_wants_no_login_says_so(run, open_server):
    refused = run("login", "--url", open_server.url, "--user", "a", "--password-stdin", stdin="b")
    assert (refused.exit_code, "gives no token (404): Not Found" in refused.stderr) == (1, True)
    assert "agentflow login" not in refused.stderr
    result = run("whoami", "--url", open_server.url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("user     not told: the server wants no login\n")


def test_a_session_is_where_a_user_keeps_such_things(monkeypatch, tmp_path):
    monkeypatch.delenv("AGENTFLOW_SESSION")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = Session("https://agents.example.com/a").path
    assert path.parent == tmp_path / "agentflow"
    assert path.name.startswith("agents.example.com-a-")


def test_ways_to_log_in_exclude_each_other(run):
    result = run("login", "--token-stdin", "--browser")
    assert result.exit_code == 2
    assert "--token-stdin and --browser exclude each other" in result.stderr


@pytest.fixture
def browse(monkeypatch, password):
    """Instead of a browser: alice logs in on the page that is opened."""
    monkeypatch.setattr("webbrowser.open", lambda page: log_in_on(page, password))


def log_in_on(page, password):
    with httpx2.Client(follow_redirects=True, timeout=60) as browser:
        callback = parse_qs(urlsplit(page).query)["redirect_uri"][0]
        assert browser.get(f"{callback}?code=x&state=of-somebody-else").status_code == 400
        form = re.search(r'name="form_token" value="([^"]+)"', browser.get(page).text)
        fields = {"form_token": form[1], "username": "alice", "password": password}
        assert "Go back to the terminal." in browser.post(page, data=fields).text


@pytest.mark.usefixtures("browse")
def test_a_browser_logs_in_where_no_password_is_to_be_typed(run, session, served):
    result = run("login", "--browser")
    assert result.exit_code == 0
    assert lines_of(result)[0].startswith(f"Log in at {served.url}/authorize?")
    assert lines_of(result)[1] == f"Logged in at {served.url} as alice"
    assert session.find_login().username == "alice"
    assert run("chat", stdin="hi").stdout == "echo hi\n"


def test_what_the_login_page_refuses_is_said(run, session, monkeypatch):
    def refuse(page):
        query = parse_qs(urlsplit(page).query)
        url, state = query["redirect_uri"][0], query["state"][0]
        httpx2.get(url, params={"state": state, "error": "access_denied\x1b"}, timeout=60)

    monkeypatch.setattr("webbrowser.open", refuse)
    result = run("login", "--browser")
    assert (result.exit_code, session.path.exists()) == (1, False)
    assert r"the login page refuses: access_denied\x1b" in result.stderr


def test_a_login_that_others_could_read_on_the_way_is_warned_of(run):
    result = run("login", "--url", "http://agents.invalid", "--user", "alice")
    assert lines_of(result)[0].startswith("http://agents.invalid is not encrypted")
