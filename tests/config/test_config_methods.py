"""Several methods, several keys: each credential has one judge, and each key one place."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agentflow_server.config import (
    ApiKeyConfig,
    ClaimsConfig,
    Config,
    CustomAuthConfig,
    Discovery,
    IntrospectionConfig,
    JwksFile,
    JwksUrl,
    JwtConfig,
    KeyConfig,
    NoAuthConfig,
    StaticKeys,
    effective,
    exposure_problems,
)

Load = Callable[..., Config]
Problems = Callable[..., Sequence[str]]

OTHER = "wT4zR7yB1nC6dF3gH5sL0pAkJ8vQ2mX9-eUiOqRtYx"
ISSUER = "https://id.example.com/realms/main"
PUBLIC = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
INTROSPECTION = {
    "method": "introspection",
    "url": "https://id.example.com/introspect",
    "client_id": "agents",
    "client_secret": "${CLIENT_SECRET}",
}
CUSTOM = {"method": "custom", "path": "auth.custom:Mine"}


def jwt(**settings: Any) -> dict[str, Any]:
    return {"method": "jwt", **settings}


def only_jwt(config: Config) -> JwtConfig:
    (method,) = config.auth
    assert isinstance(method, JwtConfig)
    return method


def names_of(method: Any) -> list[str]:
    assert isinstance(method, JwtConfig)
    assert isinstance(method.source, StaticKeys)
    return [key.name for key in method.source.keys]


@pytest.fixture
def one_problem(problems: Problems) -> Callable[[Any], str]:
    """The only line that this `auth` fails with, without the file's name."""

    def one_problem(auth: Any) -> str:
        (line,) = problems({"auth": auth})
        return line.removeprefix("agentflow.json: ")

    return one_problem


OneProblem = Callable[[Any], str]


# Keys of one's own


def test_several_secrets_are_a_json_list_newest_first(load: Load, secret: str) -> None:
    os.environ.update(JWT_SECRET_KEYS=json.dumps([OTHER, secret]), JWT_ALGORITHM="HS512")
    assert only_jwt(load({"auth": "jwt"})).source == StaticKeys(
        (
            KeyConfig(None, "HS512", SecretStr(OTHER), "JWT_SECRET_KEYS[0]"),
            KeyConfig(None, "HS512", SecretStr(secret), "JWT_SECRET_KEYS[1]"),
        )
    )


@pytest.mark.parametrize("text", ["", "[]", "hunter2", '"hunter2"', '["hunter2", 1]', "[" * 9000])
def test_a_list_of_secrets_that_is_none_is_not_repeated(problems: Problems, text: str) -> None:
    os.environ["JWT_SECRET_KEYS"] = text
    assert list(problems({"auth": "jwt"})) == [
        'environment: JWT_SECRET_KEYS: expected a JSON list of strings, the newest first: ["…", "…"]'
    ]


def test_every_secret_of_the_list_is_looked_at(problems: Problems, secret: str) -> None:
    os.environ["JWT_SECRET_KEYS"] = json.dumps([secret, " ", "-----BEGIN X", secret])
    lines = problems({"auth": "jwt"})
    assert len(lines) == 3
    assert "JWT_SECRET_KEYS[1] is empty" in lines[0]
    assert "JWT_SECRET_KEYS[2] holds a PEM key" in lines[1]
    assert "JWT_SECRET_KEYS[0] and JWT_SECRET_KEYS[3] hold the same key" in lines[2]


def test_one_secret_and_a_list_of_them_is_too_much(one_problem: OneProblem, secret: str) -> None:
    os.environ.update(JWT_SECRET_KEY=secret, JWT_SECRET_KEYS=json.dumps([OTHER]), MINE=OTHER)
    assert one_problem("jwt").startswith("auth: JWT_SECRET_KEY and JWT_SECRET_KEYS are both set")
    del os.environ["JWT_SECRET_KEY"]
    line = one_problem(jwt(secret_key="${MINE}"))
    assert line.startswith("auth.secret_key: MINE and JWT_SECRET_KEYS are both set")


def test_keys_are_read_from_variables_and_files(load: Load, tmp_path: Path, secret: str) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/2025.pem").write_text("-----BEGIN PUBLIC KEY-----", encoding="utf-8")
    (tmp_path / ".env").write_text(f"JWT_KEY_OLD={secret}\n", encoding="utf-8")
    keys = [
        {"kid": "2025", "algorithm": "ES256", "public_key_file": "keys/2025.pem"},
        {"algorithm": "HS256", "secret_env": "JWT_KEY_OLD"},
    ]
    method = only_jwt(load({"env": ".env", "auth": jwt(keys=keys)}))
    pem = SecretStr("-----BEGIN PUBLIC KEY-----")
    assert method.source == StaticKeys(
        (
            KeyConfig("2025", "ES256", pem, "keys/2025.pem"),
            KeyConfig(None, "HS256", SecretStr(secret), "JWT_KEY_OLD"),
        )
    )
    assert method.algorithms == ("ES256", "HS256")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ([], "auth.keys: expected at least one value, found an empty list"),
        ([{"algorithm": "HS256"}], "auth.keys[0]: expected either secret_env or public_key_file"),
        (
            [{"algorithm": "ES256", "secret_env": "MINE", "public_key_file": "k.pem"}],
            "auth.keys[0]: expected either secret_env or public_key_file",
        ),
        ([{"secret_env": "MINE"}], "auth.keys[0].algorithm: is missing"),
        (
            [{"algorithm": "HS256", "secret_env": "GONE"}],
            "auth.keys[0].secret_env: the environment variable GONE is not set",
        ),
        (
            [{"algorithm": "HS256", "secret_env": "BLANK"}],
            'auth.keys[0].secret_env: BLANK is empty; "agentflow secret" makes a good one',
        ),
        (
            [{"algorithm": "HS256", "secret_env": "hunter2hunter2"}],
            "auth.keys[0].secret_env: expected the name of an environment variable, in capitals",
        ),
        (
            [{"algorithm": "HS256", "secret_env": "${MINE}"}],
            "auth.keys[0].secret_env: expected a variable's name, without ${}",
        ),
        (
            [{"algorithm": "HS256", "public_key_file": "k.pem"}],
            "auth.keys[0].public_key_file: HS256 needs a shared secret: secret_env",
        ),
        (
            [
                {"kid": "a", "algorithm": "HS256", "secret_env": "MINE"},
                {"kid": "a", "algorithm": "ES256", "public_key_file": "k.pem"},
            ],
            "auth.keys[1].kid: is that of keys[0] too",
        ),
        (
            [
                {"kid": "a", "algorithm": "HS256", "secret_env": "MINE"},
                {"kid": "b", "algorithm": "HS256", "secret_env": "MINE_TOO"},
            ],
            "auth: MINE and MINE_TOO hold the same key",
        ),
        (
            [{"algorithm": "HS256", "secret_evn": "MINE"}],
            'auth.keys[0].secret_evn: unknown key – did you mean "secret_env"?',
        ),
        (["hunter2"], "auth.keys[0]: expected an object, found a string"),
    ],
)
def test_a_mistake_in_a_key_is_one_line(
    one_problem: OneProblem, tmp_path: Path, secret: str, keys: list[Any], line: str
) -> None:
    (tmp_path / "k.pem").write_text("pem", encoding="utf-8")
    os.environ.update(MINE=secret, MINE_TOO=secret, BLANK=" ")
    assert one_problem(jwt(keys=keys)) == line


def test_a_missing_key_file_is_named(one_problem: OneProblem, tmp_path: Path) -> None:
    keys = [{"algorithm": "ES256", "public_key_file": "gone.pem"}]
    gone = tmp_path / "gone.pem"
    line = f"auth.keys[0].public_key_file: {gone}: there is no such file"
    assert one_problem(jwt(keys=keys)) == line
    line = f"auth.jwks_file: {tmp_path / 'gone.json'}: there is no such file"
    assert one_problem(jwt(jwks_file="gone.json")) == line


# Keys of others


def test_a_key_set_comes_from_a_file_an_address_or_the_issuer(load: Load, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text("{}", encoding="utf-8")
    local = only_jwt(load({"auth": jwt(jwks_file="jwks.json", issuer="a")}))
    assert local.source == JwksFile(tmp_path / "jwks.json")
    url = "https://id.example.com/jwks?p=1"
    fetched = only_jwt(load({"auth": jwt(jwks_url=url, algorithms=["ES256"])}))
    assert (fetched.source, fetched.algorithms) == (JwksUrl(url), ("ES256",))
    found = only_jwt(load({"auth": jwt(issuer=ISSUER + "/", audience="agents")}))
    assert (found.source, found.issuer) == (Discovery(), ISSUER + "/")
    assert (found.algorithms, found.audience) == (PUBLIC, ("agents",))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]/x"])
def test_http_is_for_this_machine(load: Load, url: str) -> None:
    assert only_jwt(load({"auth": jwt(jwks_url=url)})).source == JwksUrl(url)
    assert only_jwt(load({"auth": jwt(issuer=url)})).source == Discovery()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://id.example.com/x", "must be https; http is for a loopback address only"),
        ("http://127.0.0.1.example.com/", "must be https; http is for a loopback address only"),
        ("https://me:hunter2@id.example.com/", "the address must not contain a user or a fragment"),
        ("https://id.example.com/#x", "the address must not contain a user or a fragment"),
        ("https://id.example.com\\x", 'expected an address like "https://id.example.com/…"'),
        ("https://", 'expected an address like "https://id.example.com/…"'),
        ("https://[", 'expected an address like "https://id.example.com/…"'),
        ("https://id.exämple.com", 'expected an address like "https://id.example.com/…"'),
    ],
)
def test_keys_are_fetched_from_decent_addresses_only(
    one_problem: OneProblem, url: str, why: str
) -> None:
    for setting in ("jwks_url", "issuer"):
        line = one_problem(jwt(**{setting: url}))
        assert line.startswith(f"auth.{setting}: {why}")
        assert "hunter2" not in line


def test_other_addresses_are_none(one_problem: OneProblem) -> None:
    assert one_problem(jwt(jwks_url="ftp://id.example.com")).startswith("auth.jwks_url: expected")
    query = "auth.issuer: an issuer whose keys are discovered has no query"
    assert one_problem(jwt(issuer=ISSUER + "?x")) == query


def test_one_source_is_enough(one_problem: OneProblem, secret: str) -> None:
    os.environ["MINE"] = secret
    assert one_problem(jwt(secret_key="${MINE}", jwks_url="https://x.example/")) == (
        "auth: expected one of secret_key, keys, jwks_file, jwks_url, found secret_key and jwks_url"
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"jwks_url": ISSUER, "algorithms": ["RS256", "HS256"]},
            "auth.algorithms[1]: HS256 needs a shared secret; published keys are for RS* and ES*",
        ),
        (
            {"issuer": ISSUER, "algorithms": ["HS512"]},
            "auth.algorithms[0]: HS512 needs a shared secret; published keys are for RS* and ES*",
        ),
        (
            {"jwks_url": ISSUER, "algorithms": []},
            "auth.algorithms: expected at least one value, found an empty list",
        ),
        (
            {"jwks_url": ISSUER, "algorithm": "RS256"},
            'auth.algorithm: is for a key of your own; write "algorithms": […]',
        ),
        (
            {"issuer": ISSUER, "allow_weak_secret": True},
            "auth.allow_weak_secret: is for a secret; a key set has none",
        ),
        (
            {"secret_key": "${MINE}", "algorithms": ["RS256"]},
            "auth.algorithms: is for key sets; a key of your own has an algorithm",
        ),
        (
            {"keys": [{"algorithm": "HS256", "secret_env": "MINE"}], "algorithm": "HS256"},
            "auth.algorithm: each of the keys has its own",
        ),
        ({"issuer": ISSUER, "max_age": 0}, "auth.max_age: expected a number above 0.0, found 0"),
        (
            {"issuer": ISSUER, "claims": {"role": "x"}},
            'auth.claims.role: unknown key – did you mean "roles"?',
        ),
        (
            {"issuer": ISSUER, "claims": {"roles": []}},
            "auth.claims.roles: expected a string, or a list of strings, found an empty list",
        ),
        ({"issuer": ISSUER, "user_id_claim": "sub"}, "auth.user_id_claim: unknown key"),
    ],
)
def test_what_does_not_fit_the_keys_is_refused(
    one_problem: OneProblem, secret: str, settings: dict[str, Any], line: str
) -> None:
    os.environ["MINE"] = secret
    assert one_problem(jwt(**settings)) == line


def test_rules_for_tokens_are_kept(load: Load) -> None:
    claims = {
        "user_id": "email",
        "scopes": "scp",
        "roles": ["realm_access.roles", "groups"],
        "required": {"tenant": "acme", "email_verified": True},
    }
    settings = {"token_type": "at+jwt", "max_lifetime": 3600, "max_age": 7200, "primary": True}
    method = only_jwt(load({"auth": jwt(issuer=ISSUER, claims=claims, **settings)}))
    assert method.claims == ClaimsConfig(
        user_id="email",
        scopes=("scp",),
        roles=("realm_access.roles", "groups"),
        required={"tenant": "acme", "email_verified": True},
    )
    assert (method.token_type, method.max_lifetime, method.max_age) == ("at+jwt", 3600, 7200)
    assert method.primary
    assert ClaimsConfig().scopes == ("scope", "scp", "scopes", "permissions")
    assert ClaimsConfig().roles == ("roles",)


# The file and the environment


def test_a_source_in_the_file_beats_the_environment(load: Load, secret: str) -> None:
    os.environ.update(JWT_SECRET_KEY=secret, JWT_ALGORITHM="HS256", MINE=OTHER)
    fetched = only_jwt(load({"auth": jwt(jwks_url=ISSUER)}))
    assert (fetched.source, fetched.algorithms) == (JwksUrl(ISSUER), PUBLIC)
    keys = [{"algorithm": "HS384", "secret_env": "MINE"}]
    assert names_of(only_jwt(load({"auth": jwt(keys=keys)}))) == ["MINE"]


def test_a_key_in_the_environment_beats_discovery(load: Load, secret: str) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    method = only_jwt(load({"auth": jwt(issuer=ISSUER)}))
    assert (names_of(method), method.issuer) == (["JWT_SECRET_KEY"], ISSUER)


def test_an_issuer_in_the_environment_alone_starts_no_discovery(one_problem: OneProblem) -> None:
    os.environ["JWT_ISSUER"] = ISSUER
    assert "JWT_SECRET_KEY is not set" in one_problem("jwt")


def test_the_issuer_of_the_environment_is_the_one_that_is_discovered(
    load: Load, one_problem: OneProblem
) -> None:
    os.environ.update(JWT_ISSUER=ISSUER, JWT_AUDIENCE="agents")
    method = only_jwt(load({"auth": jwt(issuer="https://other.example")}))
    assert (method.source, method.issuer, method.audience) == (Discovery(), ISSUER, ("agents",))
    os.environ["JWT_ISSUER"] = "me"
    line = 'auth.issuer: expected an address like "https://id.example.com/…"'
    assert one_problem(jwt(issuer=ISSUER)) == line


def test_an_issuer_that_is_no_address_needs_a_key(one_problem: OneProblem) -> None:
    assert "JWT_SECRET_KEY is not set" in one_problem(jwt(issuer="me"))


# Several methods


def test_methods_stay_in_their_order(load: Load, secret: str) -> None:
    os.environ.update(JWT_SECRET_KEY=secret, CLIENT_SECRET=OTHER)
    config = load({"auth": ["jwt", "api_key", INTROSPECTION, CUSTOM]})
    kinds = [JwtConfig, ApiKeyConfig, IntrospectionConfig, CustomAuthConfig]
    assert [type(method) for method in config.auth] == kinds
    assert config.auth_written


def test_one_method_may_be_a_word_an_object_or_a_list(load: Load) -> None:
    for auth in ("api_key", {"method": "api_key"}, ["api_key"], [{"method": "api_key"}]):
        assert load({"auth": auth}).auth == (ApiKeyConfig(header=True),)
    assert load({"auth": ["none"]}).auth == (NoAuthConfig(),)
    header = load({"auth": {"method": "api_key", "header": False}}).auth
    assert header == (ApiKeyConfig(header=False),)


def test_two_methods_of_one_issuer_may_both_be_primary(load: Load) -> None:
    os.environ["CLIENT_SECRET"] = OTHER
    methods = [
        jwt(issuer=ISSUER, primary=True),
        {**INTROSPECTION, "issuer": ISSUER, "primary": True},
        jwt(issuer="https://other.example"),
    ]
    assert [getattr(method, "primary", None) for method in load({"auth": methods}).auth] == [
        True,
        True,
        False,
    ]


def test_the_variables_belong_to_the_method_without_an_issuer(load: Load, secret: str) -> None:
    os.environ.update(JWT_SECRET_KEY=secret, JWT_AUDIENCE="agents", JWT_ISSUER="me", MINE=OTHER)
    other = {"issuer": "us", "secret_key": "${MINE}", "audience": ["web"]}
    first, second, third = load({"auth": [jwt(issuer=ISSUER), jwt(**other), "jwt"]}).auth
    assert isinstance(first, JwtConfig)
    assert (first.source, first.issuer, first.audience) == (Discovery(), ISSUER, ())
    assert names_of(second) == ["MINE"]
    assert isinstance(second, JwtConfig)
    assert (second.issuer, second.audience) == ("us", ("web",))
    assert names_of(third) == ["JWT_SECRET_KEY"]
    assert isinstance(third, JwtConfig)
    assert (third.issuer, third.audience) == ("me", ("agents",))


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        (["none", "api_key"], 'auth[0]: "none" cannot be one of several methods'),
        (["api_key", {"method": "none"}], 'auth[1]: "none" cannot be one of several methods'),
        (["api_key", {"method": "api_key"}], 'auth[1]: "api_key" is written already'),
        (
            [INTROSPECTION, INTROSPECTION],
            "auth[1]: an opaque token does not say which of two servers it is from",
        ),
        (
            ["jwt", jwt(secret_key="${MINE}")],
            "auth[1].issuer: is missing; of several JWT methods only one may do without",
        ),
        (
            [jwt(issuer=ISSUER), jwt(issuer=ISSUER, jwks_url=ISSUER)],
            "auth[1].issuer: is that of auth[0] too",
        ),
        (
            [jwt(issuer=ISSUER, primary=True), {**INTROSPECTION, "issuer": "x", "primary": True}],
            "auth[1].primary: auth[0] is primary already, of another issuer",
        ),
        (
            ["api_key", jwt(secret_key="${MINE}", primary=True)],
            "auth[1].primary: is for a method with an issuer",
        ),
        (
            ["api_key", None],
            'auth[1]: expected "jwt", "api_key" or an object like {"method": "jwt", …}, found null',
        ),
        (
            ["api_key", "jtw"],
            (
                'auth[1]: expected "jwt", "api_key" or an object like {"method": "jwt", …}, '
                'found "jtw" – did you mean "jwt"?'
            ),
        ),
        (
            ["api_key", jwt(isuer=ISSUER)],
            'auth[1].isuer: unknown key – did you mean "issuer"?',
        ),
        (
            ["api_key", {**INTROSPECTION, "leeway": 5}],
            'auth[1].leeway: unknown key – it belongs to "method": "jwt"',
        ),
        (
            ["api_key", jwt(timeout=5)],
            'auth[1].timeout: unknown key – it belongs to "method": "introspection" or "custom"',
        ),
        (
            ["api_key", {**INTROSPECTION, "client_secret": "hunter2"}],
            (
                "auth[1].client_secret: a secret does not belong into this file; write "
                '"${CLIENT_SECRET}" and put the value into the environment or the env file'
            ),
        ),
        (
            [jwt(issuer="a", secret_key="${GONE}"), "api_key"],
            "auth[0].secret_key: the environment variable GONE is not set",
        ),
        (
            ["api_key", {**INTROSPECTION, "url": "http://id.example.com/"}],
            "auth[1].url: must be https; http is for a loopback address only",
        ),
        (
            ["api_key", {**INTROSPECTION, "cache_seconds": 61}],
            "auth[1].cache_seconds: expected at most 60, found 61",
        ),
    ],
)
def test_a_mistake_among_several_methods_is_one_line(
    one_problem: OneProblem, secret: str, auth: list[Any], line: str
) -> None:
    os.environ.update(CLIENT_SECRET=OTHER, MINE=OTHER)
    if "jwt" in auth:
        os.environ["JWT_SECRET_KEY"] = secret
    assert one_problem(auth) == line


def test_among_several_an_issuer_without_an_address_needs_keys_in_the_file(
    one_problem: OneProblem, secret: str
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    line = one_problem([jwt(issuer=ISSUER), jwt(issuer="us")])
    assert line.startswith("auth[1]: has no key; write secret_key, keys, jwks_file, jwks_url")


def test_introspection_has_safe_defaults(load: Load) -> None:
    os.environ["CLIENT_SECRET"] = OTHER
    (method,) = load({"auth": INTROSPECTION}).auth
    assert method == IntrospectionConfig(
        url="https://id.example.com/introspect",
        client_id="agents",
        client_secret=SecretStr(OTHER),
        client_auth="client_secret_basic",
        issuer=None,
        audience=(),
        claims=ClaimsConfig(),
        timeout=5.0,
        cache_seconds=60,
        primary=False,
    )


def test_several_methods_are_shown_without_their_secrets(
    load: Load, tmp_path: Path, secret: str
) -> None:
    (tmp_path / "jwks.json").write_text("{}", encoding="utf-8")
    os.environ.update(JWT_SECRET_KEY=secret, CLIENT_SECRET=OTHER, PART="hunter2")
    auth = [
        jwt(issuer=ISSUER, claims={"required": {"token_use": "access"}}),
        jwt(issuer="b", jwks_url="https://x.example/?token=hunter2"),
        jwt(issuer="c", jwks_file="jwks.json"),
        "jwt",
        {**INTROSPECTION, "audience": "agents"},
        "api_key",
        {**CUSTOM, "options": {"deep": [{"x": "${PART}"}]}},
    ]
    config = load({"auth": auth})
    shown = effective(config)["auth"]
    assert [one.get("source") for one in shown[:3]] == [
        "discovery",
        {"jwks_url": "https://x.example/?token=********"},
        {"jwks_file": str(tmp_path / "jwks.json")},
    ]
    assert shown[0]["claims"]["required"] == {"token_use": "access"}
    assert (shown[4]["client_secret"], shown[4]["audience"]) == ("********", ["agents"])
    assert shown[5] == {"method": "api_key", "header": True}
    assert shown[6]["options"] == {"deep": [{"x": "********"}]}
    for text in (repr(config), json.dumps(effective(config))):
        for canary in (secret, OTHER):
            assert canary not in text
    assert "hunter2" not in json.dumps(effective(config))


def test_a_weak_secret_among_several_methods_stays_at_home(load: Load, secret: str) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    config = load({"auth": ["api_key", jwt(allow_weak_secret=True)]})
    (error,), warnings = exposure_problems(config, "0.0.0.0")
    assert error.startswith("agentflow.json: auth[1].allow_weak_secret: 0.0.0.0 can be reached")
    assert warnings == ()
