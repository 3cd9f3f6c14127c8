"""What the door writes into the audit log."""

import time
from typing import Any, Literal

from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.token import peek_header
from agentflow_server.errors import NotAuthenticated
from agentflow_server.interfaces import AuditLog
from agentflow_server.metrics import Metrics
from agentflow_server.models import AuditEvent, Principal
from agentflow_server.web.visit import Visit


class Scribe:
    """Writes one event per decision, without a log nothing; and counts them."""

    def __init__(self, audit: AuditLog | None, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def admitted(self, visit: Visit, principal: Principal) -> None:
        self._metrics.authenticated(principal.method, "success")
        self._write(visit, "authenticate", "success", principal)

    def refused(self, visit: Visit, reason: str, principal: Principal | None = None) -> None:
        """`principal` is who he is for certain: of a credential that was good, and is no more."""
        method = None if principal is None else principal.method
        self._metrics.authenticated(method, "failure", reason)
        self._write(visit, "authenticate", "failure", principal, reason=reason)

    def unavailable(self, visit: Visit, reason: str) -> None:
        self._metrics.authenticated(None, "error", reason)
        self._write(visit, "authenticate", "error", reason=reason)

    def limited(self, visit: Visit, principal: Principal | None, quota: str) -> None:
        details = {"quota": quota}
        self._write(
            visit, "rate_limit", "failure", principal, reason="rate_limited", details=details
        )

    def allowed(self, visit: Visit, principal: Principal, scope: str) -> None:
        self._write(visit, "authorize", "success", principal, details={"scope": scope})

    def forbidden(self, visit: Visit, principal: Principal, scope: str) -> None:
        details = {"scope": scope}
        self._write(visit, "authorize", "failure", principal, reason="not_allowed", details=details)

    def read_as_admin(self, visit: Visit, principal: Principal, owner: str) -> None:
        self._write(visit, "read_as_admin", "success", principal, details={"owner": owner})

    def answered(self, visit: Visit, principal: Principal, owner: str, run_id: str) -> None:
        details = {"owner": owner, "run_id": run_id}
        self._write(visit, "answer", "success", principal, details=details)

    def let_in(
        self,
        visit: Visit,
        action: str,
        *,
        how: str,
        user_id: str,
        token_id: str | None = None,
        client_id: str,
    ) -> None:
        """The token server has done what it was asked for: `login`, `token.issued`."""
        self._metrics.authenticated(how, "success")
        details = {"client_id": client_id, "grant": how}
        self._write(visit, action, "success", user_id=user_id, token_id=token_id, details=details)

    def turned_away(self, visit: Visit, action: str, *, how: str | None, reason: str) -> None:
        """`login` or `token.refused`; of what was sent, nothing was verified."""
        self._metrics.authenticated(how, "failure", reason)
        details = {} if how is None else {"grant": how}
        self._write(visit, action, "failure", reason=reason, details=details)

    def token_revoked(self, visit: Visit) -> None:
        self._write(visit, "token.revoked", "success")

    def _write(
        self,
        visit: Visit,
        action: str,
        result: Literal["success", "failure", "error"],
        principal: Principal | None = None,
        **facts: Any,
    ) -> None:
        if self._audit is None:
            return
        if principal is not None:
            facts |= _describe_principal(principal)
        if visit.credential is not None:
            facts |= _describe_token(visit.credential)
        self._audit.record(
            AuditEvent(
                time=time.time(),
                action=action,
                result=result,
                client=visit.address,
                route=visit.route,
                request_id=visit.request_id,
                **facts,
            )
        )


def _describe_principal(principal: Principal) -> dict[str, Any]:
    return {
        "user_id": principal.id or None,
        "method": principal.method,
        "issuer": principal.issuer,
        "token_id": principal.token_id,
    }


def _describe_token(credential: HTTPAuthorizationCredentials) -> dict[str, Any]:
    """`alg` and `kid` of a JWT, as it says itself; nothing of anything else."""
    try:
        header = peek_header(credential.credentials)
    except NotAuthenticated:
        return {}
    found = {"algorithm": header.get("alg"), "key_id": header.get("kid")}
    return {name: value for name, value in found.items() if isinstance(value, str)}
