"""Authentication methods: as the file has them, and as the server is built from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, SecretStr, Tag

from agentflow_server.config.addresses import SecureUrl
from agentflow_server.config.fields import Audience, Names, Reference, Text, VariableName, refused
from agentflow_server.config.sections import Section

SecretAlgorithm = Literal["HS256", "HS384", "HS512"]
PublicAlgorithm = Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
PUBLIC_ALGORITHMS: tuple[Algorithm, ...] = get_args(PublicAlgorithm)


class NoAuthConfig(Section):
    """Everybody may use the server, as one anonymous user."""

    method: Literal["none"] = "none"


class ClaimsConfig(Section):
    """What the claims of a token mean. A name may be a path: `realm_access.roles`."""

    user_id: Text | None = Field(
        default=None, description="The claim that names the user; else `user_id`, then `sub`."
    )
    scopes: Names = Field(
        default=("scope", "scp", "scopes", "permissions"),
        description="Claims that hold scopes: a list, or a string with spaces.",
    )
    roles: Names = Field(default=("roles",), description="Claims that hold roles.")
    required: dict[Text, Any] = Field(
        default={}, description="Claims that a token must have, with these values."
    )


class _TokenRules(Section):
    """What JWTs and introspected tokens have in common."""

    audience: Audience = Field(default=(), description="One of these must be in the token's `aud`.")
    claims: ClaimsConfig = ClaimsConfig()
    primary: bool = Field(
        default=False, description="Of several issuers, the one whose user ids stand alone."
    )


class _JwtRules(_TokenRules):
    method: Literal["jwt"] = "jwt"
    issuer: Text | None = Field(
        default=None,
        description="The `iss` a token must have. Also JWT_ISSUER. Without a key, an https "
        "address, from which the keys are discovered.",
    )
    token_type: Text = Field(
        default="JWT", description="The `typ` a token may have besides JWT, e.g. at+jwt."
    )
    leeway: float = Field(
        default=5.0, ge=0, le=60, description="Seconds that clocks may differ (`nbf`, `iat`)."
    )
    max_lifetime: float | None = Field(
        default=None, gt=0, description="Seconds between `iat` and `exp` at most."
    )
    max_age: float | None = Field(default=None, gt=0, description="Seconds since `iat` at most.")
    allow_weak_secret: bool = Field(
        default=False, description="Accept a weak HMAC secret, on a loopback address only."
    )


class KeySection(Section):
    """One of several keys, as it is written in the file."""

    kid: Text | None = Field(default=None, description="The key id that tokens name.")
    algorithm: Algorithm
    secret_env: VariableName | None = Field(
        default=None, description="The environment variable that holds the secret or PEM."
    )
    public_key_file: Text | None = Field(
        default=None, description="A PEM file; relative to the folder of agentflow.json."
    )


def _no_secrets(value: str) -> str:
    if value in get_args(SecretAlgorithm):
        raise refused(f"{value} needs a shared secret; published keys are for RS* and ES*")
    return value


class JwtSection(_JwtRules):
    """JSON Web Tokens, as the file describes them: with one source of keys at most."""

    secret_key: SecretStr | None = Field(
        default=None, description='Only as "${VARIABLE}". Default: the variable JWT_SECRET_KEY.'
    )
    algorithm: Algorithm | None = Field(
        default=None, description="Default HS256; required for a PEM. Also JWT_ALGORITHM."
    )
    keys: list[KeySection] | None = Field(
        default=None, min_length=1, description="Several keys, the newest first."
    )
    jwks_file: Text | None = Field(default=None, description="A file with a JSON Web Key Set.")
    jwks_url: SecureUrl | None = Field(
        default=None, description="Where a JSON Web Key Set is fetched; https."
    )
    algorithms: list[Annotated[Algorithm, AfterValidator(_no_secrets)]] | None = Field(
        default=None,
        min_length=1,
        description="What keys of a set may be used for; default: RS* and ES*.",
    )


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A key and the one algorithm it is for. `name` is the variable or file it comes from."""

    kid: str | None
    algorithm: Algorithm
    material: SecretStr
    name: str


@dataclass(frozen=True, slots=True)
class StaticKeys:
    """Keys that are there at start-up; the first is the newest."""

    keys: tuple[KeyConfig, ...]


@dataclass(frozen=True, slots=True)
class JwksFile:
    """A JSON Web Key Set in a file that exists; the path is absolute."""

    path: Path


@dataclass(frozen=True, slots=True)
class JwksUrl:
    """A JSON Web Key Set at an https (or loopback) address."""

    url: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """A JSON Web Key Set that the issuer's metadata names; `issuer` is an address."""


KeySource = StaticKeys | JwksFile | JwksUrl | Discovery


def _algorithms_of(data: Mapping[str, Any]) -> tuple[Algorithm, ...]:
    source = data.get("source")
    if isinstance(source, StaticKeys):
        return tuple(dict.fromkeys(key.algorithm for key in source.keys))
    return PUBLIC_ALGORITHMS


class JwtConfig(_JwtRules):
    """JSON Web Tokens that are verified with the keys of one source."""

    source: KeySource
    algorithms: tuple[Algorithm, ...] = Field(default_factory=_algorithms_of)


class IntrospectionConfig(_TokenRules):
    """Opaque tokens, about which the authorization server is asked (RFC 7662)."""

    method: Literal["introspection"] = "introspection"
    url: SecureUrl = Field(description="The introspection endpoint; https.")
    client_id: Text
    client_secret: SecretStr = Field(description='Only as "${VARIABLE}".')
    client_auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    issuer: Text | None = Field(default=None, description="The `iss` the answer must have.")
    timeout: float = Field(default=5.0, gt=0, le=60, description="Seconds; then it is a 503.")
    cache_seconds: int = Field(
        default=60, ge=0, le=60, description="How long a good answer is believed; 0: never."
    )


class ApiKeyConfig(Section):
    """API keys of the server's own: `agentflow api-keys create`."""

    method: Literal["api_key"] = "api_key"
    header: bool = Field(
        default=True, description="Accept them in X-API-Key too, besides Authorization: Bearer."
    )


class CustomAuthConfig(Section):
    """A class of the user's own."""

    method: Literal["custom"] = "custom"
    path: Reference = Field(description="The BaseAuth class: `auth.custom:MyAuthBackend`.")
    options: dict[str, Any] = Field(
        default={}, repr=False, description="Keyword arguments of the class."
    )
    timeout: float = Field(
        default=5.0, gt=0, le=300, description="Seconds after which a request is answered 503."
    )


class TokenServerAuthConfig(Section):
    """Tokens of this server's own; what comes with the section `token_server`."""

    method: Literal["token_server"] = "token_server"
    issuer: str
    audience: str
    password_grant: bool = False


WrittenAuthConfig = NoAuthConfig | JwtConfig | IntrospectionConfig | ApiKeyConfig | CustomAuthConfig
"""What stands in `auth`."""
AuthConfig = WrittenAuthConfig | TokenServerAuthConfig

MethodSection = NoAuthConfig | JwtSection | IntrospectionConfig | ApiKeyConfig | CustomAuthConfig
METHODS: Mapping[str, type[MethodSection]] = {
    "none": NoAuthConfig,
    "jwt": JwtSection,
    "introspection": IntrospectionConfig,
    "api_key": ApiKeyConfig,
    "custom": CustomAuthConfig,
}
Word = Literal["none", "jwt", "api_key"]
WORDS: tuple[Word, ...] = get_args(Word)


def _method_form(value: Any) -> str | None:
    match value:
        case "none" | "jwt" | "api_key":
            return "word"
        case {"method": str(method)} if method in METHODS:
            return method
    return None


def _auth_form(value: Any) -> str | None:
    match value:
        case None:
            return "null"
        case [_, *_]:
            return "list"
    return _method_form(value) and "one"


def _told_apart(form: Callable[[Any], str | None], what: str) -> Discriminator:
    return Discriminator(form, custom_error_type="expected", custom_error_message=what)


_Method = Annotated[
    Annotated[Word, Tag("word")]
    | Annotated[NoAuthConfig, Tag("none")]
    | Annotated[JwtSection, Tag("jwt")]
    | Annotated[IntrospectionConfig, Tag("introspection")]
    | Annotated[ApiKeyConfig, Tag("api_key")]
    | Annotated[CustomAuthConfig, Tag("custom")],
    _told_apart(_method_form, '"jwt", "api_key" or an object like {"method": "jwt", …}'),
]
AuthSection = Annotated[
    Annotated[None, Tag("null")]
    | Annotated[_Method, Tag("one")]
    | Annotated[list[_Method], Tag("list")],
    _told_apart(
        _auth_form,
        'null, "none", "jwt", "api_key", an object like {"method": "jwt", …} or a list of methods',
    ),
]


def find_issuer(method: AuthConfig) -> str | None:
    """Who vouches for the users: an introspection's address if nobody else; None if that is us."""
    match method:
        case JwtConfig() | TokenServerAuthConfig():
            return method.issuer
        case IntrospectionConfig():
            return method.issuer or method.url
    return None


def find_namespaces(methods: Sequence[AuthConfig]) -> Sequence[str]:
    """What the user ids of each method begin with; blank where they stand alone.

    Those of the token server always do: commands name local users so.
    """
    issuers = {find_issuer(method) for method in methods} - {None}
    # A person is the same whether his token is verified here or asked about at his issuer.
    primary = {
        find_issuer(method)
        for method in methods
        if isinstance(method, TokenServerAuthConfig)
        or (isinstance(method, JwtConfig | IntrospectionConfig) and method.primary)
    }
    return [
        "" if issuer is None or len(issuers) == 1 or issuer in primary else f"{issuer}|"
        for issuer in map(find_issuer, methods)
    ]
