"""The types of single settings: each says in its own words what was expected."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_AGENT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
SCOPE_PATTERN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,128}")
_ROUTE = re.compile(r"[A-Z]{3,10} /[\x21-\x22\x24-\x3E\x40-\x7E]*")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_SQLITE = "sqlite:///"
_HOSTS = r"(\[[^\]@/]*\]|[^:@/,?\[]*)(:\d*)?"
_POSTGRES = re.compile(rf"\w+://([^@/]*@)?{_HOSTS}(,{_HOSTS})*(/[^@?]*)?(\?.*)?")
_DATABASES = '"sqlite:///path/to/file.db" or "postgresql://user:password@host/database"'


def expected(what: str) -> PydanticCustomError:
    """The value is not what it should be; the line ends with what was found."""
    return PydanticCustomError("expected", "{what}", {"what": what})


def refused(why: str) -> PydanticCustomError:
    """The value is understood and not accepted; the line says why and not what was found."""
    return PydanticCustomError("refused", "{why}", {"why": why})


def is_postgres(database: str) -> bool:
    return database.startswith(("postgresql://", "postgres://"))


def _text(value: str) -> str:
    if not value.strip():
        raise expected("some text")
    if value != value.strip() or not value.isprintable():
        raise refused("has white space at an end, or control characters")
    return value


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise expected('"package.module:attribute"')
    return value


def _agent_name(value: str) -> str:
    if not _AGENT_NAME.fullmatch(value):
        raise expected("a name of 1 to 64 letters, digits, - and _")
    return value


def _database(value: str) -> str:
    if value.startswith(("postgresql+", "postgres+")):
        raise refused('expected "postgresql://…", without the name of a driver')
    if is_postgres(value):
        # What else is wrong with it, libpq says when it connects.
        if not value.isprintable() or " " in value or value.endswith("://"):
            raise expected(_DATABASES)
        # libpq would find a host or a database in the password, and show it as such.
        if not _POSTGRES.fullmatch(value):
            raise refused('in a user and a password "@" is written %40, "/" %2F and ":" %3A')
        return value
    path = value.removeprefix(_SQLITE)
    if value in ("sqlite://", _SQLITE, "sqlite:///:memory:"):
        raise refused("a database in memory would lose every thread at a restart; name a file")
    if not value.startswith(_SQLITE) or path.endswith("/"):
        raise expected(_DATABASES)
    if "?" in path or "\0" in path:
        raise refused("options after the file name are not supported")
    return value


def _public_url(value: str) -> str:
    what = 'an address like "https://agents.example.com"'
    try:
        url = urlsplit(value)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        raise expected(what) from None
    if not valid or not value.isprintable() or " " in value:
        raise expected(what)
    if "@" in url.netloc or url.query or url.fragment:
        raise refused("the address must not contain a user, a query or a fragment")
    return value.rstrip("/")


def _origin(value: str) -> str:
    if value != "*" and not _ORIGIN.fullmatch(value):
        raise expected('an origin: lower-case scheme://host or scheme://host:port, or "*"')
    return value


def _http_token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise expected("a name as HTTP has them")
    return value


def _method(value: str) -> str:
    if not _TOKEN.fullmatch(value) or value != value.upper():
        raise expected('an HTTP method in capitals, or "*"')
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise expected('a host name or address like "127.0.0.1"')
    return value


def _names(value: Any) -> Any:
    names = value if isinstance(value, list | tuple) else [value]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise expected("a string, or a list of strings")
    return tuple(names)


def _names_or_none(value: Any) -> Any:
    return () if value is None or value == () else _names(value)


def _scope(value: str) -> str:
    if not SCOPE_PATTERN.fullmatch(value):
        raise expected("a scope: visible ASCII without spaces, quotes and backslashes")
    return value


def _route(value: str) -> str:
    if not _ROUTE.fullmatch(value):
        raise expected('a route like "POST /threads"')
    return value


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        # What stands here instead may be the secret itself, so it is not repeated.
        raise refused("expected the name of an environment variable, in capitals")
    return value


Text = Annotated[str, AfterValidator(_text)]
Reference = Annotated[str, AfterValidator(_reference), Field(examples=["package.module:attribute"])]
AgentName = Annotated[str, AfterValidator(_agent_name)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
Origin = Annotated[str, AfterValidator(_origin)]
HeaderName = Annotated[str, AfterValidator(_http_token)]
Method = Annotated[str, AfterValidator(_method)]
Host = Annotated[str, AfterValidator(_host)]
Scope = Annotated[str, AfterValidator(_scope)]
Route = Annotated[str, AfterValidator(_route)]
VariableName = Annotated[str, AfterValidator(_variable)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names, json_schema_input_type=str | list[str])]
Audience = Annotated[
    tuple[str, ...], BeforeValidator(_names_or_none, json_schema_input_type=str | list[str] | None)
]
