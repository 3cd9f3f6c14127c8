"""From the config to the implementations it asks for, each checked; nothing is opened yet."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from agentflow_server.adapters import open_agents
from agentflow_server.audit import open_audit
from agentflow_server.auth import Revocations, open_authenticator
from agentflow_server.auth.authorization import (
    ADMIN,
    OwnerAuthorizer,
    ScopeAuthorizer,
    load_authorizer,
)
from agentflow_server.config import Config, NoAuthConfig, RolesConfig
from agentflow_server.connections import Connections
from agentflow_server.databases import Database, choose_database
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import Agent, Authorizer, RateLimiter
from agentflow_server.limits import open_limiter
from agentflow_server.limits.address import parse_networks
from agentflow_server.metrics import Metrics, Tracing, open_metrics, open_tracing
from agentflow_server.models import JsonObject
from agentflow_server.runs.naming import GenerateName, load_generator
from agentflow_server.token_server import ScopeRules, TokenServer, TokenStores
from agentflow_server.users import open_passwords
from agentflow_server.web.door import DoorRules, Guards
from agentflow_server.web.scopes import SCOPES
from agentflow_server.webhooks import WebhookSender

T = TypeVar("T")

WEBHOOK_POLL_SECONDS = 5.0
"""How often to look for what commands and other processes have left to be sent."""

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server is made of."""

    database: Database
    agents: dict[str, Agent]
    generate_name: GenerateName | None
    guards: Guards
    door_rules: DoorRules
    sender: WebhookSender | None
    token_server: TokenServer | None
    connections: Connections
    metrics: Metrics
    tracing: Tracing


def choose_parts(config: Config, *, upgrades: bool = True) -> Parts:
    """Load the agents, the authentication, the keys. Raises ConfigError with every problem.

    Unless this `upgrades`, a database that an older version has made will not be opened.
    """
    watch = config.observability
    metrics = Metrics() if watch.metrics is None else open_metrics()
    tracing = Tracing() if watch.traces is None else open_tracing(**watch.traces.model_dump())
    observe = metrics.database if metrics.is_on else None
    database = choose_database(config, observe=observe, upgrades=upgrades)
    errors: list[ConfigError] = []

    def attempt(choose: Callable[[], T]) -> T | None:
        try:
            return choose()
        except ConfigError as exc:
            errors.append(exc)
            return None

    guards = attempt(lambda: _choose_guards(config, database, metrics))
    agents = attempt(
        lambda: open_agents(
            config.agents,
            database=database.checkpoints,
            checkpointer=config.checkpointer,
            store=config.store,
            durability=config.runs.durability,
        )
    )
    generator_path = config.thread_name_generator
    generate_name = attempt(lambda: load_generator(generator_path) if generator_path else None)
    rules = attempt(lambda: _choose_rules(config))
    sender = attempt(lambda: _choose_sender(config, database, metrics))
    limiter = None if guards is None else guards.limiter
    token_server = attempt(lambda: _choose_token_server(config, database, limiter))
    if guards is None or agents is None or rules is None or errors:
        raise ConfigError.joined(errors)
    return Parts(
        database=database,
        agents=agents,
        generate_name=generate_name,
        guards=guards,
        door_rules=rules,
        sender=sender,
        token_server=token_server,
        connections=Connections(config.connections),
        metrics=metrics,
        tracing=tracing,
    )


def resource_metadata(config: Config) -> tuple[str, JsonObject] | None:
    """The RFC 9728 document and its URL, where a client can be told who issues tokens."""
    found = (_issuer_of(auth) for auth in config.auth)
    issuers = list(dict.fromkeys(issuer for issuer in found if issuer is not None))
    own = None if config.token_server is None else config.token_server.issuer
    resource = config.public_url or own
    if resource is None or not issuers:
        return None
    parts = urlsplit(resource)
    document = {
        "resource": resource,
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
        "scopes_supported": sorted(set(SCOPES.values())),
    }
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}", document


def _issuer_of(auth: Any) -> str | None:
    issuer: str | None = getattr(auth, "issuer", None)  # only some methods have one
    return issuer if issuer is not None and issuer.startswith(("https://", "http://")) else None


def _choose_guards(config: Config, database: Database, metrics: Metrics) -> Guards:
    is_open = config.auth == (NoAuthConfig(),)
    audit = config.observability.audit
    return Guards(
        authenticator=open_authenticator(
            config.auth, credentials=database.credentials, grants=database.grants
        ),
        authorizer=_choose_authorizer(config),
        limiter=open_limiter(config.redis),
        revocations=None if is_open else Revocations(database.credentials),
        audit=None
        if audit.sink == "off"
        else open_audit(audit, folder=config.folder, table=database.audit_table),
        metrics=metrics,
    )


def _choose_sender(config: Config, database: Database, metrics: Metrics) -> WebhookSender | None:
    if config.webhooks is None:
        return None
    return WebhookSender(
        database.webhooks, config.webhooks, poll=WEBHOOK_POLL_SECONDS, count=metrics.webhook
    )


def _choose_token_server(
    config: Config, database: Database, limiter: RateLimiter | None
) -> TokenServer | None:
    if config.token_server is None:
        return None
    passwords = open_passwords()
    if limiter is None:
        return None  # why is said already
    rules = config.authorization
    return TokenServer(
        config.token_server,
        TokenStores(database.users, database.grants, database.credentials),
        passwords=passwords,
        limiter=limiter,
        per_address=config.rate_limit.failed_auth,
        scopes=ScopeRules(
            known=frozenset(SCOPES.values()),
            of_roles=rules.roles if isinstance(rules, RolesConfig) else {},
        ),
    )


def _choose_authorizer(config: Config) -> Authorizer:
    match config.authorization:
        case None:
            return OwnerAuthorizer()
        case str(path):
            return load_authorizer(path)
        case rules:
            written = [
                *rules.default_scopes,
                *(s for scopes in rules.roles.values() for s in scopes),
            ]
            _refuse_unknown("authorization", written, {*SCOPES.values(), ADMIN})
            return ScopeAuthorizer(rules.roles, rules.default_scopes)


def _choose_rules(config: Config) -> DoorRules:
    limits = config.rate_limit
    routes = {f"{method} {path}" for method, path in SCOPES}
    _refuse_unknown("rate_limit.routes", limits.routes, routes)
    return DoorRules(
        per_principal=limits.per_principal,
        per_address=limits.per_address,
        failed_auth=limits.failed_auth,
        routes=limits.routes,
        trusted_proxies=parse_networks(config.limits.trusted_proxies),
    )


def _refuse_unknown(setting: str, written: Iterable[str], known: set[str]) -> None:
    """Raises ConfigError: what names nothing would be accepted and ignored."""
    problems = []
    for name in sorted(set(written) - known):
        close = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"did you mean {close[0]!r}?"
            if close
            else f"expected one of {', '.join(sorted(known))}"
        )
        problems.append(f"{setting}: there is no {name!r} – {hint}")
    if problems:
        raise ConfigError(*problems)
