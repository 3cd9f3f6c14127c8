"""From the `auth` section to the authenticator that was meant."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentflow_server.auth.anonymous import NoAuth
from agentflow_server.auth.any_of import AnyOf
from agentflow_server.auth.api_key import ApiKeyAuth
from agentflow_server.auth.backend import find_recogniser, load_backend
from agentflow_server.auth.claim_rules import ClaimRules
from agentflow_server.auth.custom import CustomAuth
from agentflow_server.auth.fetching import Fetcher
from agentflow_server.auth.introspection import MAX_ANSWER, IntrospectionAuth, IntrospectionClient
from agentflow_server.auth.jwks import parse_jwks
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.key_set import FixedKeys, KeySet, KeySource
from agentflow_server.auth.keys import VerifyingKey, load_key
from agentflow_server.auth.own_tokens import CLIENT_PREFIX, OwnTokenAuth
from agentflow_server.auth.remote_keys import RemoteKeys
from agentflow_server.auth.stored_keys import StoredKeys
from agentflow_server.config import (
    ApiKeyConfig,
    AuthConfig,
    CustomAuthConfig,
    Discovery,
    IntrospectionConfig,
    JwksFile,
    JwksUrl,
    JwtConfig,
    KeyConfig,
    NoAuthConfig,
    StaticKeys,
    TokenServerAuthConfig,
    find_namespaces,
)
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import Authenticator, CredentialStore, GrantStore


@dataclass(frozen=True, slots=True)
class _Stores:
    """Where the server keeps what some methods ask for; `grants` only for the token server."""

    credentials: CredentialStore
    grants: GrantStore | None


def open_authenticator(
    configs: Sequence[AuthConfig],
    *,
    credentials: CredentialStore,
    grants: GrantStore | None = None,
) -> Authenticator:
    """Load key material or the user's backend, and judge it; nothing is fetched yet.

    Raises ConfigError with every problem there is.
    """
    stores = _Stores(credentials, grants)
    methods: list[Authenticator] = []
    errors: list[ConfigError] = []
    for config in configs:
        try:
            methods.append(_open_method(config, configs, stores))
        except ConfigError as exc:
            errors.append(exc)
    if errors:
        raise ConfigError.joined(errors)
    return methods[0] if len(methods) == 1 else AnyOf(methods)


def open_jwt(config: JwtConfig, configs: Sequence[AuthConfig] = ()) -> JwtAuth:
    """`configs` are all methods of the server, by default this one. Raises ConfigError."""
    issuers = {
        other.issuer for other in configs if isinstance(other, JwtConfig | TokenServerAuthConfig)
    }
    return JwtAuth(
        _open_keys(config),
        replace(
            _make_rules(config, configs or (config,)),
            leeway=config.leeway,
            max_lifetime=config.max_lifetime,
            max_age=config.max_age,
        ),
        token_type=config.token_type,
        foreign_issuers=frozenset(issuer for issuer in issuers if issuer is not None),
    )


def _open_method(
    config: AuthConfig, configs: Sequence[AuthConfig], stores: _Stores
) -> Authenticator:
    match config:
        case NoAuthConfig():
            return NoAuth()
        case JwtConfig():
            return open_jwt(config, configs)
        case IntrospectionConfig():
            return _open_introspection(config, configs, stores.credentials)
        case ApiKeyConfig():
            return ApiKeyAuth(stores.credentials, header=config.header)
        case TokenServerAuthConfig():
            return _open_own_tokens(config, configs, stores.grants)
        case CustomAuthConfig():
            return _open_custom(config, configs)


def _open_own_tokens(
    config: TokenServerAuthConfig, configs: Sequence[AuthConfig], grants: GrantStore | None
) -> OwnTokenAuth:
    assert grants is not None  # noqa: S101 – whoever has a token server has a database
    rules = ClaimRules(
        issuer=config.issuer,
        audience=frozenset({config.audience}),
        reserved=_foreign_namespaces(config, configs),
    )
    return OwnTokenAuth(StoredKeys(grants), rules)


def _open_custom(config: CustomAuthConfig, configs: Sequence[AuthConfig]) -> CustomAuth:
    backend = load_backend(config.path, config.options)
    if config is not configs[-1] and find_recogniser(backend) is None:
        written = [one for one in configs if not isinstance(one, TokenServerAuthConfig)]
        raise ConfigError(
            f"auth[{written.index(config)}]: {config.path!r} takes every bearer token, so those after "
            "it are never asked: write it last, or give it a method `recognises(self, credential)`"
        )
    foreign = _foreign_namespaces(None, configs)
    return CustomAuth(backend, timeout=config.timeout, reserved=foreign)


def _open_keys(config: JwtConfig) -> KeySource:
    match config.source:
        case StaticKeys(keys):
            return FixedKeys(_load_keys(keys, allow_weak_secret=config.allow_weak_secret))
        case JwksFile(path):
            return FixedKeys(_read_jwks(path, config.algorithms))
        case JwksUrl(url):
            return RemoteKeys(issuer=config.issuer, url=url, algorithms=config.algorithms)
        case Discovery():
            return RemoteKeys(issuer=config.issuer, algorithms=config.algorithms)


def _load_keys(keys: Sequence[KeyConfig], *, allow_weak_secret: bool) -> KeySet:
    loaded: list[VerifyingKey] = []
    problems: list[str] = []
    for key in keys:
        text, name = key.material.get_secret_value(), key.name
        try:
            loaded.append(
                load_key(
                    text,
                    key.algorithm,
                    variable=name,
                    key_id=key.kid,
                    allow_weak_secret=allow_weak_secret,
                )
            )
        except ConfigError as exc:
            problems.extend(exc.problems)
    if problems:
        raise ConfigError(*problems)
    return KeySet(loaded)


def _read_jwks(path: Path, algorithms: Sequence[str]) -> KeySet:
    try:
        keys = parse_jwks(path.read_bytes(), algorithms)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: {exc}") from None
    if not keys.keys:
        raise ConfigError(f"{path}: has no key that can verify a token with {_join(algorithms)}")
    return keys


def _join(names: Sequence[str]) -> str:
    return ", ".join(names)


def _open_introspection(
    config: IntrospectionConfig, configs: Sequence[AuthConfig], credentials: CredentialStore
) -> IntrospectionAuth:
    others = [ApiKeyAuth(credentials) for other in configs if isinstance(other, ApiKeyConfig)]
    return IntrospectionAuth(
        IntrospectionClient(
            config.url,
            config.client_id,
            config.client_secret.get_secret_value(),
            config.client_auth,
        ),
        _make_rules(config, configs),
        cache_seconds=config.cache_seconds,
        leaves_jwts=config is not configs[-1],
        is_foreign=lambda credential: any(other.recognises(credential) for other in others),
        fetcher=Fetcher(timeout=config.timeout, max_bytes=MAX_ANSWER),
    )


def _make_rules(
    config: JwtConfig | IntrospectionConfig, configs: Sequence[AuthConfig]
) -> ClaimRules:
    return ClaimRules(
        issuer=config.issuer,
        audience=frozenset(config.audience),
        user_id_claim=config.claims.user_id,
        scope_claims=config.claims.scopes,
        role_claims=config.claims.roles,
        required=config.claims.required,
        namespace=_find_namespace(config, configs),
        reserved=_foreign_namespaces(config, configs),
    )


def _find_namespace(config: AuthConfig, configs: Sequence[AuthConfig]) -> str:
    namespaces = zip(configs, find_namespaces(configs), strict=True)
    return next(namespace for other, namespace in namespaces if other is config)


def _foreign_namespaces(
    config: AuthConfig | None, configs: Sequence[AuthConfig]
) -> tuple[str, ...]:
    namespaces = zip(configs, find_namespaces(configs), strict=True)
    found = [namespace for other, namespace in namespaces if namespace and other is not config]
    others = [other for other in configs if other is not config]
    if any(isinstance(other, TokenServerAuthConfig) for other in others):
        found.append(CLIENT_PREFIX)
    return tuple(found)
