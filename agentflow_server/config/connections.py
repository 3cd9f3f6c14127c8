"""The section `connections`: where tools may present a credential, and which one."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from agentflow_server.config.addresses import SecureUrl, explain_issuer
from agentflow_server.config.explain import Place, Problems, describe, name_place, suggest
from agentflow_server.config.fields import HeaderName, Scope, Text, expected, refused
from agentflow_server.config.reading import find_variable
from agentflow_server.config.sections import Section

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LINE = re.compile(r"[\x21-\x7E]([\x20-\x7E]*[\x21-\x7E])?")
_TOKEN = re.compile(r"[\x21-\x7E]+")
_COOKIE = re.compile(r"[\x21\x23-\x2B\x2D-\x3A\x3C-\x5B\x5D-\x7E]+")

_OF_THE_PROTOCOL = frozenset(
    {"grant_type", "scope", "client_id", "client_secret", "audience", "resource"}
)
_OF_HTTP = frozenset({"connection", "content-length", "cookie", "host", "te", "transfer-encoding"})


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise expected("a name of 1 to 64 letters, digits, - and _")
    return value


def _base_url(value: str) -> str:
    if "?" in value:
        raise refused("the address must not contain a query")
    return value.rstrip("/")


def _origin(value: str) -> str:
    if urlsplit(value).path or "?" in value:
        raise expected('an origin like "https://files.example.com", without a path')
    return value


def _extra(value: str) -> str:
    if value in _OF_THE_PROTOCOL:
        raise refused("is not an extra parameter: it has its own place")
    return value


ConnectionName = Annotated[str, AfterValidator(_name)]
BaseUrl = Annotated[SecureUrl, AfterValidator(_base_url)]
OtherOrigin = Annotated[SecureUrl, AfterValidator(_origin)]
ExtraName = Annotated[Text, AfterValidator(_extra)]


class _Connection(Section):
    """What all types have in common."""

    base_url: BaseUrl = Field(
        description="The API; the credential is sent to its origin and no other. https."
    )
    origins: list[OtherOrigin] = Field(
        default=[], description="Further origins of the same API, scheme://host[:port]."
    )
    timeout: float = Field(
        default=30.0, gt=0, le=600, description="Seconds that the API may be silent."
    )


class ApiKeyConnection(_Connection):
    """A key that goes with each request."""

    type: Literal["api_key"] = "api_key"
    place: Literal["header", "query", "cookie"] = Field(default="header", alias="in")
    name: HeaderName = Field(
        default="X-API-Key", description="The header, the parameter or the cookie."
    )
    value: SecretStr = Field(description='Only as "${VARIABLE}".')


class BasicConnection(_Connection):
    """A user name and a password (RFC 7617)."""

    type: Literal["basic"] = "basic"
    username: Text
    password: SecretStr = Field(description='Only as "${VARIABLE}".')


class BearerConnection(_Connection):
    """A token that does not change."""

    type: Literal["bearer"] = "bearer"
    token: SecretStr = Field(description='Only as "${VARIABLE}".')


class ClientCredentialsConnection(_Connection):
    """Tokens for this server itself, from an authorization server (RFC 6749 section 4.4)."""

    type: Literal["client_credentials"] = "client_credentials"
    token_url: SecureUrl | None = Field(default=None, description="Its token endpoint; https.")
    issuer: Text | None = Field(
        default=None, description="Or its address, if it publishes where the endpoint is."
    )
    client_id: Text
    client_secret: SecretStr = Field(description='Only as "${VARIABLE}".')
    token_endpoint_auth_method: Literal["client_secret_basic", "client_secret_post"] = (
        "client_secret_basic"  # noqa: S105 – the name of a method
    )
    scopes: list[Scope] = Field(default=[], description="What is asked for, unless a tool says.")
    audience: Text | None = None
    resource: SecureUrl | None = Field(default=None, description="RFC 8707.")
    extra: dict[ExtraName, SecretStr] = Field(
        default={}, description="Further parameters of the token request."
    )


ConnectionConfig = (
    ApiKeyConnection | BasicConnection | BearerConnection | ClientCredentialsConnection
)
CONNECTION_TYPES: Mapping[str, type[ConnectionConfig]] = {
    "api_key": ApiKeyConnection,
    "basic": BasicConnection,
    "bearer": BearerConnection,
    "client_credentials": ClientCredentialsConnection,
}
_SECRETS: Mapping[str, tuple[str, str]] = {
    "api_key": ("value", "KEY"),
    "basic": ("password", "PASSWORD"),
    "bearer": ("token", "TOKEN"),
    "client_credentials": ("client_secret", "SECRET"),
}
"""The key that holds the secret, and how a variable for it may end."""


def _known_type(value: Any) -> Any:
    match value:
        case {"type": str(name)} if name not in CONNECTION_TYPES:
            known = list(CONNECTION_TYPES)
            hint = suggest(name, known) or f" – expected {_TYPES}"
            raise refused(f"there is no type {describe(name)}{hint}")
        case {"type": str()} | _Connection():
            return value
    raise expected(f'an object with "type": {_TYPES}')


_TYPES = " or ".join(f'"{name}"' for name in CONNECTION_TYPES)
ConnectionSection = Annotated[
    Annotated[ConnectionConfig, Field(discriminator="type")], BeforeValidator(_known_type)
]


def check_connections(
    raw: Any,
    connections: Mapping[str, ConnectionConfig],
    *,
    unset: Collection[Place],
    problems: Problems,
) -> None:
    """What the types alone do not say; `connections` are empty where those say no already."""
    for name, written in (raw if isinstance(raw, dict) else {}).items():
        match written:
            case {"type": str(kind)} if kind in _SECRETS:
                key, word = _SECRETS[kind]
                value = written.get(key)
                if isinstance(value, str) and find_variable(value) is None:
                    problems.add(
                        name_place(("connections", name, key)),
                        "a secret does not belong into this file; write "
                        f'"${{{_variable(name, word)}}}" and put the value into the environment '
                        "or the env file",
                    )
    for name, connection in connections.items():
        for key, why in _explain(connection):
            if ("connections", name, key) not in unset:
                problems.add(f"connections.{name}.{key}", why)


def _variable(name: str, word: str) -> str:
    stem = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    return f"{stem}_{word}" if stem[:1].isalpha() else f"MY_{word}"


def _explain(connection: ConnectionConfig) -> Iterator[tuple[str, str]]:
    """The keys whose values cannot be used, and why; never with the value."""
    match connection:
        case ApiKeyConnection():
            yield from _explain_key(connection)
        case BasicConnection():
            if ":" in connection.username:
                yield "username", "must not contain a colon, which ends it"
            password = connection.password.get_secret_value()
            if not password or not password.isprintable():
                yield "password", "is empty, or has control characters"
        case BearerConnection():
            if not _TOKEN.fullmatch(connection.token.get_secret_value()):
                yield "token", "is empty, or not visible ASCII"
        case ClientCredentialsConnection():
            yield from _explain_client(connection)


def _explain_key(connection: ApiKeyConnection) -> Iterator[tuple[str, str]]:
    value = connection.value.get_secret_value()
    if connection.place == "header" and connection.name.lower() in _OF_HTTP:
        yield "name", "is a header of HTTP's own"
    if connection.place == "query" and not (value and value.isprintable()):
        yield "value", "is empty, or has control characters"
    if connection.place == "header" and not _LINE.fullmatch(value):
        yield "value", "is empty, or no visible ASCII that a header can hold"
    if connection.place == "cookie" and not _COOKIE.fullmatch(value):
        yield "value", "is empty, or has characters that a cookie cannot hold"


def _explain_client(connection: ClientCredentialsConnection) -> Iterator[tuple[str, str]]:
    if connection.token_url is None and connection.issuer is None:
        yield "token_url", 'is missing; or name the "issuer", which publishes it'
    if connection.token_url is not None and connection.issuer is not None:
        yield "issuer", 'is for a missing "token_url"; remove one of them'
    if connection.issuer is not None and (why := explain_issuer(connection.issuer)):
        yield "issuer", why
    if not connection.client_secret.get_secret_value().strip():
        yield "client_secret", "is empty"
