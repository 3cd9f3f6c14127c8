"""From a request's headers to a caller who may do what he asks for, before its body is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network

from fastapi import HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.authorization import ADMIN
from agentflow_server.auth.revocation import Revocations
from agentflow_server.errors import (
    AuthUnavailable,
    Forbidden,
    InvalidRequest,
    NotAuthenticated,
    TooManyRequests,
)
from agentflow_server.interfaces import AuditLog, Authenticator, Authorizer, Quota, RateLimiter
from agentflow_server.limits.address import client_address, limit_key
from agentflow_server.models import Principal
from agentflow_server.web.auditing import Scribe
from agentflow_server.web.credentials import read_credential
from agentflow_server.web.visit import Visit

REFUSALS = frozenset({401, 403})
"""What a backend's HTTPException means "no" with; with any other status it means "not now"."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Everybody who has a say at the door."""

    authenticator: Authenticator
    authorizer: Authorizer
    limiter: RateLimiter
    revocations: Revocations | None = None
    audit: AuditLog | None = None


@dataclass(frozen=True, slots=True)
class DoorRules:
    """How often who may ask, and whom we believe about addresses. None: no limit.

    `routes` has quotas per caller, by method and path: `POST /threads`.
    """

    per_principal: Quota | None = None
    per_address: Quota | None = None
    failed_auth: Quota | None = None
    routes: Mapping[str, Quota] = field(default_factory=dict)
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()


class Door:
    """Asks the guards, in this order: address, credential, revocation, permission, quota."""

    def __init__(self, guards: Guards, rules: DoorRules | None = None) -> None:
        self._guards = guards
        self._rules = rules or DoorRules()
        self._scribe = Scribe(guards.audit)
        schemes = guards.authenticator.security_schemes
        self._asks_for_credential = bool(schemes)
        self._takes_api_key_header = any(s["type"] == "apiKey" for s in schemes.values())

    async def admit(self, request: Request, *, action: str, route: str) -> Principal:
        """The caller, allowed to do `action`.

        What the guards want to tell the client goes into `scope["agentflow.headers"]`. Raises
        NotAuthenticated, AuthUnavailable, Forbidden, TooManyRequests, InvalidRequest, and a custom
        backend's HTTPException.
        """
        visit = Visit(request, action, route, self._find_address(request))
        request.scope["agentflow.headers"] = visit.headers
        await self._count(visit, "address", None, self._rules.per_address)
        principal = await self._authenticate(visit)
        await self._authorize(visit, principal, action, request.path_params.get("thread_id"))
        await self._count(visit, "principal", principal, self._rules.per_principal)
        await self._count(visit, "route", principal, self._rules.routes.get(route))
        return await self._as_owner(visit, principal)

    async def _authenticate(self, visit: Visit) -> Principal:
        try:
            visit.credential = self._read_credential(visit.request)
            principal = await self._ask(visit)
            if self._guards.revocations is not None:
                await self._guards.revocations.check(principal)
        except AuthUnavailable as error:
            self._scribe.unavailable(visit, error.reason)
            raise
        except NotAuthenticated as error:
            self._scribe.refused(visit, error.reason)
            if error.token_sent:
                await self._count_failure(visit)
            raise
        except HTTPException as error:
            reason = f"http_{error.status_code}"
            if error.status_code in REFUSALS:
                self._scribe.refused(visit, reason)
                await self._count_failure(visit)
            else:
                self._scribe.unavailable(visit, reason)
            raise
        self._scribe.admitted(visit, principal)
        return principal

    def _read_credential(self, request: Request) -> HTTPAuthorizationCredentials | None:
        if not self._asks_for_credential:
            return None
        credential = read_credential(request.headers, api_key_header=self._takes_api_key_header)
        if credential is None and self._guards.authenticator.credential_required:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        return credential

    async def _ask(self, visit: Visit) -> Principal:
        response = Response()
        own_headers = len(response.raw_headers)
        try:
            return await self._guards.authenticator.authenticate(
                visit.request, response, visit.credential
            )
        finally:
            visit.headers += response.raw_headers[own_headers:]

    async def _count_failure(self, visit: Visit) -> None:
        """Only refused credentials count, and only they are stopped: whoever shares an attacker's
        address but has a good credential never meets this limit."""
        await self._count(visit, "failed-auth", None, self._rules.failed_auth)

    async def _authorize(
        self, visit: Visit, principal: Principal, action: str, resource: str | None
    ) -> None:
        if not await self._guards.authorizer.authorize(principal, action, resource):
            self._scribe.forbidden(visit, principal, action)
            raise Forbidden(scope=action)
        self._scribe.allowed(visit, principal, action)

    async def _as_owner(self, visit: Visit, principal: Principal) -> Principal:
        """With `?owner=`, an administrator reads what belongs to somebody else."""
        owner = visit.request.query_params.get("owner")
        if owner is None:
            return principal
        if visit.request.method != "GET":
            raise InvalidRequest("owner: what belongs to somebody else can only be read")
        await self._authorize(visit, principal, ADMIN, owner)
        self._scribe.read_as_admin(visit, principal, owner)
        return replace(principal, id=owner)

    async def _count(
        self, visit: Visit, name: str, principal: Principal | None, quota: Quota | None
    ) -> None:
        """Count one hit of the caller, or of his address as long as nobody knows who he is.

        The fields are those of draft-ietf-httpapi-ratelimit-headers.
        """
        if quota is None:
            return
        known = principal is not None and not principal.is_anonymous
        who = f"user {principal.id}" if principal and known else limit_key(visit.address)
        what = f"{name} {visit.route}" if name == "route" else name
        left = await self._guards.limiter.hit(f"{what} {who}", quota)
        policy = f'"{name}";q={quota.amount};w={quota.seconds}'
        state = f'"{name}";r={left.remaining};t={left.reset_after}'
        visit.headers += [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]
        if not left.allowed:
            self._scribe.limited(visit, principal, name)
            raise TooManyRequests(retry_after=max(1, left.reset_after))

    def _find_address(self, request: Request) -> str:
        address = request.client.host if request.client else ""
        if not self._rules.trusted_proxies:
            return address
        forwarded = request.headers.getlist("x-forwarded-for")
        return client_address(address, forwarded, self._rules.trusted_proxies)
