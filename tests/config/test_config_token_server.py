"""The section `token_server`: who issues, for which clients, and what is refused."""

from typing import Any

import pytest

from agentflow_server.config import (
    ApiKeyConfig,
    JwtConfig,
    NoAuthConfig,
    TokenServerAuthConfig,
    effective,
    exposure_problems,
    find_namespaces,
)

CLIENT_SECRET = "vK3jQ9xWb7LrT2sYcN5mHd8Pe1Gf4Ae6"
BACK = "https://app.example.com/back"


def test_without_the_section_there_is_none(load: Any) -> None:
    config = load({})
    assert config.token_server is None
    assert config.auth == (NoAuthConfig(),)


def test_r62_an_empty_section_is_a_token_server_without_the_password_grant(load: Any) -> None:
    config = load({"token_server": {}})
    server = config.token_server
    assert server.issuer == server.audience == "http://127.0.0.1:8000"
    assert (server.access_token_lifetime, server.refresh_token_lifetime) == (900, 2_592_000)
    assert (server.password_grant, server.password_min_length) == (False, 15)
    own = server.clients["agentflow"]
    assert own.secret is None
    assert own.grants == ("authorization_code", "refresh_token")
    assert "http://127.0.0.1/callback" in own.redirect_uris
    (method,) = config.auth
    assert method == TokenServerAuthConfig(issuer=server.issuer, audience=server.audience)


@pytest.mark.parametrize(
    ("flags", "issuer"),
    [
        ({"port": 9000}, "http://127.0.0.1:9000"),
        ({"host": "localhost"}, "http://localhost:8000"),
        ({"host": "::1"}, "http://[::1]:8000"),
    ],
)
def test_the_issuer_is_where_a_loopback_server_answers(
    load: Any, flags: dict[str, Any], issuer: str
) -> None:
    assert load({"token_server": {}}, **flags).token_server.issuer == issuer


def test_the_issuer_is_the_public_url(load: Any) -> None:
    content = {"public_url": "https://a.example.com/api/", "token_server": {"audience": "agents"}}
    server = load(content, host="0.0.0.0", port=0).token_server
    assert (server.issuer, server.audience) == ("https://a.example.com/api", "agents")
    assert f"{server.issuer}/docs/oauth2-redirect" in server.clients["agentflow"].redirect_uris


@pytest.mark.parametrize("flags", [{"host": "0.0.0.0"}, {"port": 0}])
def test_elsewhere_it_asks_for_a_public_url(problems: Any, flags: dict[str, Any]) -> None:
    assert problems({"token_server": {}}, **flags) == (
        'agentflow.json: public_url: is missing; "token_server" puts it into every token',
    )


def test_a_public_url_without_https_is_for_a_loopback_address(load: Any, problems: Any) -> None:
    assert load({"public_url": "http://localhost:8000", "token_server": {}}).token_server
    assert load({"public_url": "http://[::1]:8000", "token_server": {}}).token_server
    (line,) = problems({"public_url": "http://a.example.com", "token_server": {}})
    assert "public_url: must be https" in line


def test_clients_get_the_grants_that_fit_them(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOT_SECRET", CLIENT_SECRET)
    clients = {
        "page": {"redirect_uris": [BACK]},
        "robot": {"secret": "${ROBOT_SECRET}", "scopes": ["runs:create"]},
        "tool": {},
        "backend": {"secret": "${ROBOT_SECRET}", "redirect_uris": [BACK], "name": "The app"},
        "agentflow": {"redirect_uris": [BACK]},
    }
    rules = {"roles": {"member": ["runs:create"]}}
    section = {"password_grant": True, "clients": clients}
    found = load({"authorization": rules, "token_server": section})
    server = found.token_server
    grants = {name: client.grants for name, client in server.clients.items()}
    assert grants == {
        "page": ("authorization_code", "refresh_token"),
        "robot": ("client_credentials",),
        "tool": ("password", "refresh_token"),
        "backend": ("authorization_code", "refresh_token"),
        "agentflow": ("authorization_code", "refresh_token"),
    }
    assert server.clients["agentflow"].redirect_uris == (BACK,)
    assert server.clients["robot"].scopes == ("runs:create",)
    assert (server.clients["backend"].name, server.clients["page"].name) == ("The app", "page")
    assert CLIENT_SECRET not in repr(found)
    assert CLIENT_SECRET not in str(effective(found))


def test_r62_the_own_client_may_send_passwords_when_that_is_allowed(load: Any) -> None:
    server = load({"token_server": {"password_grant": True}}).token_server
    assert "password" in server.clients["agentflow"].grants


@pytest.mark.parametrize(
    ("client", "line"),
    [
        ({}, "app.redirect_uris: is missing; a client without a secret needs it"),
        ({"grants": ["password"]}, 'app.grants: "password" needs "password_grant": true'),
        (
            {"grants": ["client_credentials"]},
            'app.secret: is missing; "client_credentials" needs it',
        ),
        (
            {"grants": ["authorization_code"]},
            'app.redirect_uris: and "authorization_code" need each other',
        ),
        (
            {"grants": ["refresh_token"], "redirect_uris": [BACK]},
            'app.redirect_uris: and "authorization_code" need each other',
        ),
        (
            {"redirect_uris": ["http://app.example.com/back"]},
            "app.redirect_uris[0]: must be https; http is for a loopback address only",
        ),
        (
            {"redirect_uris": [f"{BACK}#x"]},
            "app.redirect_uris[0]: the address must not contain a user or a fragment",
        ),
        ({"redirect_uri": [BACK]}, 'app.redirect_uri: unknown key – did you mean "redirect_uris"?'),
        (
            {"grants": ["implicit"], "redirect_uris": [BACK]},
            (
                'app.grants[0]: expected "authorization_code", "refresh_token", "password" or '
                '"client_credentials", found "implicit"'
            ),
        ),
    ],
)
def test_a_client_that_cannot_work_is_explained(
    problems: Any, client: dict[str, Any], line: str
) -> None:
    found = problems({"token_server": {"clients": {"app": client}}})
    assert f"agentflow.json: token_server.clients.{line}" in found


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("short", "is easy to guess"),
        ("ab" * 20, "is easy to guess"),
        ("", "is empty"),
        ("pass word " * 5, "not visible ASCII"),
    ],
)
def test_a_weak_secret_is_refused_and_not_repeated(
    problems: Any, monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    monkeypatch.setenv("APP_SECRET", value)
    (line,) = problems({"token_server": {"clients": {"app": {"secret": "${APP_SECRET}"}}}})
    assert why in line
    assert '"agentflow secret" makes a good one' in line
    assert not value or value not in line


@pytest.mark.parametrize("written", [CLIENT_SECRET, "${X:-" + CLIENT_SECRET + "}", "a${X}"])
def test_r8_a_secret_in_the_file_is_refused_and_not_repeated(problems: Any, written: str) -> None:
    lines = problems({"token_server": {"clients": {"app": {"secret": written}}}})
    assert "token_server.clients.app.secret: a secret does not belong" in lines[-1]
    assert CLIENT_SECRET not in " ".join(lines)


def test_r8_a_secret_of_a_wrong_type_is_not_repeated(problems: Any) -> None:
    (line,) = problems({"token_server": {"clients": {"app": {"secret": 4711}}}})
    assert line.endswith("app.secret: expected a string, found a number")


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"acess_token_lifetime": 60}, 'unknown key – did you mean "access_token_lifetime"?'),
        ({"access_token_lifetime": 59}, "expected at least 60, found 59"),
        ({"access_token_lifetime": 3601}, "expected at most 3600, found 3601"),
        ({"password_min_length": 7}, "expected at least 8, found 7"),
        ({"password_min_length": 65}, "expected at most 64, found 65"),
        ({"password_grant": "yes"}, 'expected true or false, found "yes"'),
        ({"clients": {"a b": {}}}, "expected a client's id"),
        ({"issuer": "https://a.example.com"}, "unknown key"),
    ],
)
def test_what_is_wrong_with_the_section_is_said(
    problems: Any, section: dict[str, Any], line: str
) -> None:
    assert any(line in found for found in problems({"token_server": section}))


@pytest.mark.parametrize("auth", [None, "none"])
def test_r6_an_open_door_and_a_token_server_exclude_each_other(problems: Any, auth: Any) -> None:
    (line,) = problems({"auth": auth, "token_server": {}})
    assert line.startswith("agentflow.json: auth: lets everybody in")


def test_it_is_asked_first_of_several_methods_and_named_by_its_section(load: Any) -> None:
    config = load({"auth": ["api_key", {"method": "custom", "path": "a:B"}], "token_server": {}})
    assert [place for place, _ in config.named_methods] == ["token_server", "auth[0]", "auth[1]"]
    config = load({"auth": "api_key", "token_server": {}})
    assert [place for place, _ in config.named_methods] == ["token_server", "auth"]
    assert isinstance(config.auth[1], ApiKeyConfig)
    assert effective(config)["auth"] == {"method": "api_key", "header": True}
    assert exposure_problems(config, "0.0.0.0") == ((), ())


def test_its_users_stand_alone_and_those_of_others_do_not(load: Any) -> None:
    issuer = {"method": "jwt", "issuer": "https://id.example.com"}
    config = load({"auth": issuer, "token_server": {}})
    assert find_namespaces(config.auth) == ["", "https://id.example.com|"]
    primary = load({"auth": {**issuer, "primary": True}, "token_server": {}})
    assert find_namespaces(primary.auth) == ["", ""]


def test_another_method_cannot_be_this_server(problems: Any, load: Any) -> None:
    content = {"public_url": "https://a.example.com", "token_server": {}}
    own = {"method": "jwt", "issuer": "https://a.example.com"}
    (line,) = problems({**content, "auth": own})
    assert "auth.issuer: is this server" in line
    (line,) = problems({**content, "auth": ["api_key", own]})
    assert "auth[1].issuer: is this server" in line
    other = {"method": "jwt", "issuer": "https://b.example.com"}
    assert isinstance(load({**content, "auth": other}).auth[1], JwtConfig)


def test_an_unset_variable_is_told_once(problems: Any) -> None:
    found = problems({"token_server": {"clients": {"app": {"secret": "${NOT_THERE}"}}}})
    assert len(found) == 1
    assert "the environment variable NOT_THERE is not set" in found[0]


def test_a_limit_that_limits_nothing_is_refused(
    problems: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBOT_SECRET", CLIENT_SECRET)
    clients = {"robot": {"secret": "${ROBOT_SECRET}", "scopes": ["runs:create"]}}
    (line,) = problems({"token_server": {"clients": clients}})
    assert "token_server.clients.robot.scopes: limits nothing without" in line
