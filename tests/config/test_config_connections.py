"""The section `connections`: strict, with secrets from the environment alone."""

import json
import os
from typing import Any

import pytest

from agentflow_server.config import (
    ApiKeyConnection,
    BasicConnection,
    BearerConnection,
    ClientCredentialsConnection,
    effective,
)

CANARY = "canary-Zk3vJ9qXw2LrT8sY"
URL = "https://api.example.com/v1"
TYPES = '"api_key" or "basic" or "bearer" or "client_credentials"'
OAUTH = {
    "type": "client_credentials",
    "base_url": URL,
    "client_id": "agent",
    "client_secret": "${KEY}",
}


@pytest.fixture(autouse=True)
def _key(_own_environment: None) -> None:
    os.environ["KEY"] = CANARY


def test_without_the_section_there_are_none(load: Any) -> None:
    assert load({}).connections == {}


def test_every_type_can_be_written(load: Any) -> None:
    connections = load(
        {
            "connections": {
                "crm": {"type": "api_key", "base_url": f"{URL}/", "in": "query", "value": "${KEY}"},
                "legacy": {
                    "type": "basic",
                    "base_url": "http://127.0.0.1:9000",
                    "username": "bob",
                    "password": "${KEY}",
                    "origins": ["https://files.example.com:8443"],
                },
                "other": {"type": "bearer", "base_url": URL, "token": "${KEY}", "timeout": 5},
                "billing": {**OAUTH, "token_url": "https://id.example.com/token?tenant=a"},
                "more": {**OAUTH, "issuer": "https://id.example.com/realms/main", "scopes": ["a"]},
            }
        }
    ).connections
    crm, legacy, other, billing, more = connections.values()
    assert isinstance(crm, ApiKeyConnection)
    assert (crm.base_url, crm.place, crm.name) == (URL, "query", "X-API-Key")
    assert crm.value.get_secret_value() == CANARY
    assert isinstance(legacy, BasicConnection)
    assert legacy.origins == ["https://files.example.com:8443"]
    assert isinstance(other, BearerConnection)
    assert other.timeout == 5
    assert isinstance(billing, ClientCredentialsConnection)
    assert billing.token_endpoint_auth_method == "client_secret_basic"
    assert isinstance(more, ClientCredentialsConnection)
    assert more.scopes == ["a"]


def test_the_secrets_are_not_shown(load: Any) -> None:
    config = load(
        {
            "connections": {
                "crm": {"type": "api_key", "base_url": URL, "value": "${KEY}"},
                "legacy": {
                    "type": "basic", "base_url": URL, "username": "bob", "password": "${KEY}",
                },
                "other": {"type": "bearer", "base_url": URL, "token": "${KEY}"},
                "billing": {**OAUTH, "token_url": URL, "extra": {"assertion": "${KEY}"}},
            }
        }
    )  # fmt: skip
    shown = effective(config)["connections"]
    assert shown["crm"]["in"] == "header"
    assert shown["billing"]["token_url"] == URL
    assert CANARY not in f"{config!r} {json.dumps(shown)}"


@pytest.mark.parametrize(
    ("connection", "line"),
    [
        ({"type": "oauth_2"}, f'connections.x: there is no type "oauth_2" – expected {TYPES}'),
        ({"type": "api_kee"}, 'connections.x: there is no type "api_kee" – did you mean "api_key"?'),
        ({}, f'connections.x: expected an object with "type": {TYPES}, found an empty object'),
        ("crm", f'connections.x: expected an object with "type": {TYPES}, found "crm"'),
        ({"type": "bearer", "token": "${KEY}"}, "connections.x.base_url: is missing"),
        ({"type": "bearer", "base_url": URL, "tokn": "${KEY}", "token": "${KEY}"},
         'connections.x.tokn: unknown key – did you mean "token"?'),
        ({"type": "bearer", "base_url": URL, "token": "${UNSET}"},
         "connections.x.token: the environment variable UNSET is not set"),
        ({"type": "bearer", "base_url": URL, "token": 5}, ("connections.x.token: expected a string, "
         "found a number")),
        ({"type": "bearer", "base_url": "http://crm.example.com", "token": "${KEY}"},
         "connections.x.base_url: must be https; http is for a loopback address only"),
        ({"type": "bearer", "base_url": f"{URL}?a=1", "token": "${KEY}"},
         "connections.x.base_url: the address must not contain a query"),
        ({"type": "bearer", "base_url": URL, "token": "${KEY}", "origins": [f"{URL}/a"]},
         ("connections.x.origins[0]: expected an origin like "
         f'"https://files.example.com", without a path, found "{URL}/a"')),
        ({"type": "bearer", "base_url": URL, "token": "${SPACED}"},
         "connections.x.token: is empty, or not visible ASCII"),
        ({"type": "api_key", "base_url": URL, "in": "heder", "value": "${KEY}"},
         ('connections.x.in: expected "header", "query" or "cookie", found "heder" – did you mean '
         '"header"?')),
        ({"type": "api_key", "base_url": URL, "name": "Host", "value": "${KEY}"},
         "connections.x.name: is a header of HTTP's own"),
        ({"type": "api_key", "base_url": URL, "value": "${LINES}"},
         "connections.x.value: is empty, or no visible ASCII that a header can hold"),
        ({"type": "api_key", "base_url": URL, "in": "query", "value": "${LINES}"},
         "connections.x.value: is empty, or has control characters"),
        ({"type": "api_key", "base_url": URL, "in": "cookie", "value": "${SPACED}"},
         "connections.x.value: is empty, or has characters that a cookie cannot hold"),
        ({"type": "basic", "base_url": URL, "username": "a:b", "password": "${KEY}"},
         "connections.x.username: must not contain a colon, which ends it"),
        ({"type": "basic", "base_url": URL, "username": "a", "password": "${EMPTY}"},
         "connections.x.password: is empty, or has control characters"),
        (OAUTH, 'connections.x.token_url: is missing; or name the "issuer", which publishes it'),
        ({**OAUTH, "token_url": URL, "issuer": URL},
         'connections.x.issuer: is for a missing "token_url"; remove one of them'),
        ({**OAUTH, "issuer": "http://id.example.com"},
         "connections.x.issuer: must be https; http is for a loopback address only"),
        ({**OAUTH, "token_url": URL, "client_secret": "${EMPTY}"},
         "connections.x.client_secret: is empty"),
        ({**OAUTH, "token_url": URL, "extra": {"grant_type": "password"}},
         "connections.x.extra.grant_type: is not an extra parameter: it has its own place"),
        ({**OAUTH, "token_url": URL, "scopes": ["a b"]},
         ("connections.x.scopes[0]: expected a scope: visible ASCII without spaces, quotes and "
         'backslashes, found "a b"')),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(problems: Any, connection: Any, line: str) -> None:
    os.environ |= {"EMPTY": "", "SPACED": "two words;", "LINES": "two\nlines"}
    assert list(problems({"connections": {"x": connection}})) == [f"agentflow.json: {line}"]


@pytest.mark.parametrize("written", [CANARY, "${KEY:-" + CANARY + "}", "x${KEY}"])
@pytest.mark.parametrize(
    ("name", "connection", "key", "variable"),
    [
        ("crm", {"type": "api_key"}, "value", "CRM_KEY"),
        ("my-crm", {"type": "basic", "username": "bob"}, "password", "MY_CRM_PASSWORD"),
        ("1st", {"type": "bearer"}, "token", "MY_TOKEN"),
        ("b", {**OAUTH, "token_url": URL}, "client_secret", "B_SECRET"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(
    problems: Any, written: str, name: str, connection: Any, key: str, variable: str
) -> None:
    content = {"base_url": URL, **connection, key: written}
    (line,) = problems({"connections": {name: content}})
    assert line == (
        f"agentflow.json: connections.{name}.{key}: a secret does not belong into this file; "
        f'write "${{{variable}}}" and put the value into the environment or the env file'
    )


def test_a_name_is_checked(problems: Any) -> None:
    connection = {"type": "bearer", "base_url": URL, "token": "${KEY}"}
    (line,) = problems({"connections": {"a b": connection}})
    assert line.endswith('a b: expected a name of 1 to 64 letters, digits, - and _, found "a b"')
    (line,) = problems({"connections": [connection]})
    assert line == "agentflow.json: connections: expected an object, found a list"
