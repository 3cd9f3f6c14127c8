"""From a request's headers to a caller who may do what he asks for, before its body is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network

from fastapi import HTTPException, Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from starlette.datastructures import Headers

from agentflow_server.auth.authorization import ADMIN, ANSWER_ANY
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
from agentflow_server.metrics import Metrics
from agentflow_server.models import Principal
from agentflow_server.web.auditing import Scribe
from agentflow_server.web.credentials import API_KEY_HEADER, read_credential
from agentflow_server.web.tickets import MemoryTickets, Tickets
from agentflow_server.web.visit import Proof, Visit

REFUSALS = frozenset({401, 403})
"""What a backend's HTTPException means "no" with; with any other status it means "not now"."""

ASKED_AGAIN = frozenset({"api_key", "introspection"})
"""Methods that learn of a revocation by themselves. A backend may take a credential only once."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Everybody who has a say at the door."""

    authenticator: Authenticator
    authorizer: Authorizer
    limiter: RateLimiter
    revocations: Revocations | None = None
    audit: AuditLog | None = None
    metrics: Metrics = field(default_factory=Metrics)


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

    def __init__(
        self, guards: Guards, rules: DoorRules | None = None, tickets: Tickets | None = None
    ) -> None:
        self._guards = guards
        self._tickets = tickets or Tickets(MemoryTickets())
        self._rules = rules or DoorRules()
        self.scribe = Scribe(guards.audit, guards.metrics)
        schemes = guards.authenticator.security_schemes
        self._asks_for_credential = bool(schemes)
        self._takes_api_key_header = any(s["type"] == "apiKey" for s in schemes.values())

    async def admit(
        self, request: HTTPConnection, *, action: str | None, route: str, proof: Proof | None = None
    ) -> Principal:
        """The caller, allowed to do `action`; with `proof`, the headers' credential does not count.

        An action of None needs no permission. What the guards want to tell the client goes into
        `scope["agentflow.headers"]`. Raises NotAuthenticated, AuthUnavailable, Forbidden,
        TooManyRequests, InvalidRequest, and a custom backend's HTTPException.
        """
        visit = self._make_visit(request, action, route)
        request.scope["agentflow.headers"] = visit.headers
        request.scope["agentflow.visit"] = visit
        await self._count(visit, "address", None, self._rules.per_address)
        principal = await self._authenticate(request, visit, proof)
        await self._permit(visit, principal)
        visit.principal = principal
        return await self._as_owner(request, visit, principal)

    async def receive(self, request: HTTPConnection, *, route: str) -> Visit:
        """Somebody who needs no credential for this, and may not come too often nevertheless.

        Raises TooManyRequests.
        """
        visit = self._make_visit(request, None, route)
        request.scope["agentflow.headers"] = visit.headers
        await self._count(visit, "address", None, self._rules.per_address)
        return visit

    async def allow(
        self, request: HTTPConnection, principal: Principal, *, action: str, route: str
    ) -> None:
        """Let a caller who was admitted, and stays, do one thing more. Raises as `admit`."""
        visit = self._make_visit(request, action, route)
        await self._count(visit, "address", None, self._rules.per_address)
        await self._refuse_revoked(visit, principal)
        await self._permit(visit, principal)

    async def recheck(self, request: HTTPConnection) -> None:
        """Whether a caller who was admitted may stay. Raises NotAuthenticated, AuthUnavailable."""
        visit, principal = self._find_visit(request)
        if visit.credential is not None and principal.method in ASKED_AGAIN:
            try:
                await self._ask(request, visit)
            except NotAuthenticated as error:
                self.scribe.refused(visit, error.reason, principal)
                raise
        await self._refuse_revoked(visit, principal)

    async def may_answer_others(self, request: HTTPConnection) -> bool:
        """Whether a caller who was admitted may answer what the runs of others ask."""
        visit, principal = self._find_visit(request)
        return await self._guards.authorizer.authorize(principal, ANSWER_ANY, visit.thread_id)

    def note_answer(self, request: HTTPConnection, owner: str, run_id: str) -> None:
        """Write down that he has answered a run of `owner`'s."""
        visit, principal = self._find_visit(request)
        self.scribe.answered(visit, principal, owner, run_id)

    def dismiss(self, request: HTTPConnection) -> None:
        """Write down that a caller who was admitted has to leave: his credential has expired."""
        visit, principal = self._find_visit(request)
        self.scribe.refused(visit, "expired", principal)

    def _make_visit(self, request: HTTPConnection, action: str | None, route: str) -> Visit:
        return Visit(
            action=action,
            route=route,
            address=self.find_address(request),
            thread_id=request.path_params.get("thread_id"),
            request_id=request.scope.get("agentflow.request_id"),
        )

    def _find_visit(self, request: HTTPConnection) -> tuple[Visit, Principal]:
        """The visit, and who came: not the owner whose things an administrator reads."""
        visit: Visit = request.scope["agentflow.visit"]
        assert visit.principal is not None  # noqa: S101 – he was admitted
        return visit, visit.principal

    def expects_proof(self, request: HTTPConnection) -> bool:
        """Whether a credential is needed and the headers have none."""
        headers = request.headers
        return (
            self._asks_for_credential
            and self._guards.authenticator.credential_required
            and "authorization" not in headers
            and not (self._takes_api_key_header and API_KEY_HEADER in headers)
        )

    def identify(self, request: HTTPConnection, principal: Principal | None) -> str:
        """What a caller is counted by: himself, or his address while nobody knows who he is."""
        return _who(principal, self.find_address(request))

    async def _refuse_revoked(self, visit: Visit, principal: Principal) -> None:
        if self._guards.revocations is None:
            return
        try:
            await self._guards.revocations.check(principal)
        except NotAuthenticated as error:
            self.scribe.refused(visit, error.reason, principal)
            raise

    async def _permit(self, visit: Visit, principal: Principal) -> None:
        if visit.action is not None:
            await self._authorize(visit, principal, visit.action, visit.thread_id)
        await self._count(visit, "principal", principal, self._rules.per_principal)
        await self._count(visit, "route", principal, self._rules.routes.get(visit.route))

    async def _authenticate(
        self, request: HTTPConnection, visit: Visit, proof: Proof | None
    ) -> Principal:
        principal: Principal | None = None
        try:
            principal = await self._recognise(request, visit, proof)
            if self._guards.revocations is not None:
                await self._guards.revocations.check(principal)
        except AuthUnavailable as error:
            self.scribe.unavailable(visit, error.reason)
            raise
        except NotAuthenticated as error:
            self.scribe.refused(visit, error.reason, principal)
            if error.token_sent:
                await self._count_failure(visit)
            raise
        except HTTPException as error:
            reason = f"http_{error.status_code}"
            if error.status_code in REFUSALS:
                self.scribe.refused(visit, reason)
                await self._count_failure(visit)
            else:
                self.scribe.unavailable(visit, reason)
            raise
        self.scribe.admitted(visit, principal)
        return principal

    async def _recognise(
        self, request: HTTPConnection, visit: Visit, proof: Proof | None
    ) -> Principal:
        headers = request.headers
        if proof is not None and proof.tickets:
            if len(proof.tickets) > 1 or proof.token or "authorization" in headers:
                raise NotAuthenticated(reason="several_credentials")
            return await self._tickets.redeem(proof.tickets[0])
        if proof is not None:
            sent = [] if proof.token is None else [f"Bearer {proof.token}".encode(errors="replace")]
            headers = Headers(raw=[(b"authorization", value) for value in sent])
        visit.credential = self._read_credential(headers)
        return await self._ask(request, visit)

    def _read_credential(self, headers: Headers) -> HTTPAuthorizationCredentials | None:
        if not self._asks_for_credential:
            return None
        credential = read_credential(headers, api_key_header=self._takes_api_key_header)
        if credential is None and self._guards.authenticator.credential_required:
            raise NotAuthenticated(NotAuthenticated.MISSING, reason="missing", token_sent=False)
        return credential

    async def _ask(self, request: HTTPConnection, visit: Visit) -> Principal:
        response = Response()
        own_headers = len(response.raw_headers)
        try:
            return await self._guards.authenticator.authenticate(
                request, response, visit.credential
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
            self.scribe.forbidden(visit, principal, action)
            raise Forbidden(scope=action)
        self.scribe.allowed(visit, principal, action)

    async def _as_owner(
        self, request: HTTPConnection, visit: Visit, principal: Principal
    ) -> Principal:
        """With `?owner=`, an administrator reads what belongs to somebody else."""
        owner = request.query_params.get("owner")
        if owner is None or visit.action is None:
            return principal
        if request.scope["method"] != "GET":
            raise InvalidRequest("owner: what belongs to somebody else can only be read")
        await self._authorize(visit, principal, ADMIN, owner)
        self.scribe.read_as_admin(visit, principal, owner)
        return replace(principal, id=owner)

    async def _count(
        self, visit: Visit, name: str, principal: Principal | None, quota: Quota | None
    ) -> None:
        """Count one hit of the caller, or of his address as long as nobody knows who he is.

        The fields are those of draft-ietf-httpapi-ratelimit-headers.
        """
        if quota is None:
            return
        who = _who(principal, visit.address)
        what = f"{name} {visit.route}" if name == "route" else name
        left = await self._guards.limiter.hit(f"{what} {who}", quota)
        policy = f'"{name}";q={quota.amount};w={quota.seconds}'
        state = f'"{name}";r={left.remaining};t={left.reset_after}'
        visit.headers += [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]
        if not left.allowed:
            self.scribe.limited(visit, principal, name)
            raise TooManyRequests(retry_after=max(1, left.reset_after))

    def find_address(self, request: HTTPConnection) -> str:
        """Whom a request comes from, as far as we believe proxies."""
        address = request.client.host if request.client else ""
        if not self._rules.trusted_proxies:
            return address
        forwarded = request.headers.getlist("x-forwarded-for")
        return client_address(address, forwarded, self._rules.trusted_proxies)


def _who(principal: Principal | None, address: str) -> str:
    if principal is not None and not principal.is_anonymous:
        return f"user {principal.id}"
    return limit_key(address)
