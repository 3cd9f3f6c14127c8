"""The auth section never means "no authentication" by accident, and never tells a secret."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agentflow_server.config import (
    ClaimsConfig,
    Config,
    CustomAuthConfig,
    JwtConfig,
    KeyConfig,
    NoAuthConfig,
    StaticKeys,
    effective,
    exposure_problems,
    is_loopback,
)

Load = Callable[..., Config]
Problems = Callable[..., Sequence[str]]


ALGORITHMS = '"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384" or "ES512"'


def jwt_of(config: Config) -> JwtConfig:
    (method,) = config.auth
    assert isinstance(method, JwtConfig)
    return method


def keys_of(config: Config) -> Sequence[KeyConfig]:
    source = jwt_of(config).source
    assert isinstance(source, StaticKeys)
    return source.keys


@pytest.mark.parametrize(
    ("content", "written"),
    [
        ({}, False),
        ({"auth": None}, True),
        ({"auth": "none"}, True),
        ({"auth": {"method": "none"}}, True),
    ],
)
def test_r6_no_authentication_is_absent_or_written_down(
    load: Load, content: dict[str, Any], written: bool
) -> None:
    config = load(content)
    assert config.auth == (NoAuthConfig(),)
    assert config.auth_written is written


@pytest.mark.parametrize(
    "value", [{}, "", "JWT", [], True, 1, {"method": "Jwt"}, "custom", "introspection"]
)
def test_r6_a_strange_auth_is_refused(problems: Problems, value: Any) -> None:
    (line,) = problems({"auth": value})
    assert line.startswith(
        'agentflow.json: auth: expected null, "none", "jwt", "api_key", an object'
    )


def test_r6_a_misspelt_method_gets_a_suggestion(problems: Problems) -> None:
    assert problems({"auth": "JWT"})[0].endswith('found "JWT" – did you mean "jwt"?')


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        (
            {"method": "jwt", "path": "a:b"},
            'auth.path: unknown key – it belongs to "method": "custom"',
        ),
        (
            {"method": "custom", "path": "a:b", "leeway": 1},
            'auth.leeway: unknown key – it belongs to "method": "jwt"',
        ),
        ({"method": "custom"}, "auth.path: is missing"),
        (
            {"method": "custom", "path": "a"},
            'auth.path: expected "package.module:attribute", found "a"',
        ),
        (
            {"method": "custom", "path": "a:b", "options": []},
            "auth.options: expected an object, found an empty list",
        ),
        (
            {"method": "custom", "path": "a:b", "timeout": 0},
            "auth.timeout: expected a number above 0.0, found 0",
        ),
        (
            {"method": "custom", "path": "a:b", "patth": 0},
            'auth.patth: unknown key – did you mean "path"?',
        ),
        (
            {"method": "jwt", "issuer": "a\tb"},
            "auth.issuer: has white space at an end, or control characters",
        ),
        ({"method": "jwt", "leeway": 61}, "auth.leeway: expected at most 60.0, found 61"),
        (
            {"method": "jwt", "algorithm": "hs256"},
            f'auth.algorithm: expected {ALGORITHMS}, found "hs256" – did you mean "HS256"?',
        ),
        (
            {"method": "jwt", "audience": []},
            "auth.audience: expected a string, or a list of strings, found an empty list",
        ),
        ({"method": "jwt", "secret_key": 5}, "auth.secret_key: expected a string, found a number"),
    ],
)
def test_r6_a_mistake_in_auth_is_one_line(
    problems: Problems, secret: str, auth: dict[str, Any], line: str
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    assert list(problems({"auth": auth})) == [f"agentflow.json: {line}"]


def test_jwt_reads_its_variables(load: Load, secret: str) -> None:
    os.environ.update(JWT_SECRET_KEY=secret, JWT_ISSUER="me", JWT_AUDIENCE="you")
    config = load({"auth": "jwt"})
    auth = jwt_of(config)
    assert keys_of(config) == (KeyConfig(None, "HS256", SecretStr(secret), "JWT_SECRET_KEY"),)
    assert (auth.algorithms, auth.issuer, auth.audience) == (("HS256",), "me", ("you",))
    assert (auth.leeway, auth.allow_weak_secret, auth.claims) == (5.0, False, ClaimsConfig())


def test_r20_the_leeway_is_five_seconds_and_never_more_than_a_minute(
    load: Load, problems: Problems, secret: str
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    assert jwt_of(load({"auth": "jwt"})).leeway == 5
    assert jwt_of(load({"auth": {"method": "jwt", "leeway": 60}})).leeway == 60
    for leeway in (60.5, -1, "5"):
        (line,) = problems({"auth": {"method": "jwt", "leeway": leeway}})
        assert line.startswith("agentflow.json: auth.leeway: expected")


def test_r46_a_backend_has_five_seconds_unless_others_are_configured(load: Load) -> None:
    (backend,) = load({"auth": {"method": "custom", "path": "a:B"}}).auth
    assert isinstance(backend, CustomAuthConfig)
    assert backend.timeout == 5


def test_jwt_settings_of_the_file_are_used_and_variables_beat_them(load: Load, secret: str) -> None:
    os.environ.update(MY_KEY=secret, JWT_ISSUER="environment")
    section = {
        "method": "jwt",
        "algorithm": "HS512",
        "secret_key": "${MY_KEY}",
        "issuer": "file",
        "audience": ["a", "b"],
        "claims": {"user_id": "email"},
        "leeway": 0,
    }
    config = load({"auth": section})
    auth = jwt_of(config)
    assert (auth.algorithms, auth.issuer, auth.audience) == (("HS512",), "environment", ("a", "b"))
    assert (auth.claims.user_id, auth.leeway) == ("email", 0.0)
    assert [key.name for key in keys_of(config)] == ["MY_KEY"]


def test_r6_jwt_without_a_key_says_how_to_get_one(problems: Problems) -> None:
    (line,) = problems({"auth": "jwt"})
    assert "JWT_SECRET_KEY is not set" in line
    assert "agentflow secret" in line
    os.environ["JWT_SECRET_KEY"] = " \n"
    (line,) = problems({"auth": "jwt"})
    assert "JWT_SECRET_KEY is empty" in line


def test_jwt_variables_are_checked_only_where_they_matter(load: Load, problems: Problems) -> None:
    os.environ.update(JWT_SECRET_KEY="x", JWT_ALGORITHM="none", JWT_ISSUER="")
    assert load({"auth": "none"}).auth == (NoAuthConfig(),)
    lines = problems({"auth": "jwt"})
    assert lines[0].startswith('environment: JWT_ALGORITHM: expected "HS256"')
    assert lines[1] == "environment: JWT_ISSUER: expected some text, found an empty string"


def test_a_pem_needs_its_algorithm(load: Load, problems: Problems) -> None:
    os.environ["JWT_SECRET_KEY"] = "-----BEGIN PUBLIC KEY-----\\nabc\\n-----END PUBLIC KEY-----"
    (line,) = problems({"auth": "jwt"})
    assert line.startswith("agentflow.json: auth.algorithm: is missing: JWT_SECRET_KEY holds a PEM")
    os.environ["JWT_ALGORITHM"] = "ES256"
    assert jwt_of(load({"auth": "jwt"})).algorithms == ("ES256",)


@pytest.mark.parametrize("written", ["hunter2hunter2", "${X:-hunter2hunter2}", "x${X}"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(
    problems: Problems, secret: str, written: str
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    os.environ["X"] = secret
    (line,) = problems({"auth": {"method": "jwt", "secret_key": written}})
    assert line.startswith("agentflow.json: auth.secret_key: a secret does not belong into")
    assert "hunter2" not in line


def test_two_different_keys_are_refused(load: Load, problems: Problems, secret: str) -> None:
    section = {"auth": {"method": "jwt", "secret_key": "${MY_KEY}"}}
    os.environ.update(MY_KEY=secret, JWT_SECRET_KEY=secret)
    assert [key.name for key in keys_of(load(section))] == ["MY_KEY"]
    os.environ["JWT_SECRET_KEY"] = "another"
    (line,) = problems(section)
    assert line.endswith("MY_KEY and JWT_SECRET_KEY differ; set only one of them")


def test_r6_an_unset_key_variable_is_one_problem(problems: Problems) -> None:
    assert list(problems({"auth": {"method": "jwt", "secret_key": "${MY_KEY}"}})) == [
        "agentflow.json: auth.secret_key: the environment variable MY_KEY is not set"
    ]


def test_custom_auth_keeps_its_options(load: Load) -> None:
    auth = load({"auth": {"method": "custom", "path": "a:B", "options": {"n": [1]}}}).auth
    assert auth == (CustomAuthConfig(path="a:B", options={"n": [1]}),)


def test_r8_no_secret_is_shown(load: Load, secret: str) -> None:
    os.environ.update(JWT_SECRET_KEY=secret, PART="hunter2")
    with_jwt = load({"auth": "jwt"})
    options = {
        "api_key": "hunter2",
        "ApiToken": "hunter2",
        "password": "",
        "url": "https://alice:hunter2@example.com/x?token=hunter2&page=2",
        "at": "x:${PART}",
        "list": [{"deep": "${PART}"}, 7],
        "plain": "seen",
    }
    with_options = load({"auth": {"method": "custom", "path": "a:B", "options": options}})
    for config in (with_jwt, with_options):
        for text in (repr(config), str(config), json.dumps(effective(config))):
            assert "hunter2" not in text
            assert secret not in text
    assert effective(with_options)["auth"]["options"] == {
        "api_key": "********",
        "ApiToken": "********",
        "password": "",
        "url": "https://alice:********@example.com/x?token=********&page=2",
        "at": "********",
        "list": [{"deep": "********"}, 7],
        "plain": "seen",
    }


def test_every_setting_is_shown(load: Load, secret: str) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    shown = effective(load({"auth": "jwt"}))
    assert shown["auth"]["source"] == {
        "keys": [
            {
                "kid": None,
                "algorithm": "HS256",
                "name": "JWT_SECRET_KEY",
                "material": "********",
            }
        ]
    }
    assert shown["auth"]["algorithms"] == ["HS256"]
    assert shown["port"] == 8000
    assert Path(shown["database_path"]).name == "agentflow.db"
    assert effective(load({}))["auth"] is None
    assert effective(load({"auth": None}))["auth"] == "none"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"]
)
def test_loopback_addresses_are_safe(load: Load, host: str) -> None:
    assert is_loopback(host)
    assert exposure_problems(load({}), host) == ((), ())


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "localhost.evil", ""]
)
def test_r6_an_open_server_needs_its_auth_written_down(load: Load, host: str) -> None:
    errors, warnings = exposure_problems(load({}), host)
    assert len(errors) == 1
    assert 'write "auth": "jwt"' in errors[0]
    assert not warnings
    errors, warnings = exposure_problems(load({"auth": None}), host)
    assert not errors
    assert "everybody may use this server" in warnings[0]


def test_a_weak_secret_stays_at_home(load: Load, secret: str) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    weak = load({"auth": {"method": "jwt", "allow_weak_secret": True}})
    errors, _ = exposure_problems(weak, "0.0.0.0")
    assert errors[0].startswith("agentflow.json: auth.allow_weak_secret: 0.0.0.0 can be reached")
    errors, (warning,) = exposure_problems(weak, "127.0.0.1")
    assert errors == ()
    assert "for demos and tests only" in warning
    assert exposure_problems(load({"auth": "jwt"}), "0.0.0.0") == ((), ())
