"""Which scope each route wants: the one table."""

from collections.abc import Mapping

from agentflow_server.auth.authorization import ANSWER_ANY

SCOPES: Mapping[tuple[str, str], str] = {
    ("GET", "/agents"): "agents:read",
    ("GET", "/threads"): "threads:read",
    ("POST", "/threads"): "threads:write",
    ("GET", "/threads/{thread_id}"): "threads:read",
    ("PATCH", "/threads/{thread_id}"): "threads:write",
    ("DELETE", "/threads/{thread_id}"): "threads:write",
    ("POST", "/threads/{thread_id}/copy"): "threads:write",
    ("GET", "/threads/{thread_id}/messages"): "threads:read",
    ("POST", "/threads/{thread_id}/messages"): "runs:create",
    ("GET", "/threads/{thread_id}/runs"): "runs:read",
    ("GET", "/threads/{thread_id}/runs/{run_id}"): "runs:read",
    ("GET", "/threads/{thread_id}/runs/{run_id}/events"): "runs:read",
    ("POST", "/threads/{thread_id}/runs/{run_id}/cancel"): "runs:cancel",
    ("POST", "/threads/{thread_id}/runs/{run_id}/resume"): "runs:create",
    ("GET", "/interrupts"): "runs:read",
    ("GET", "/interrupts/all"): ANSWER_ANY,
    ("GET", "/threads/{thread_id}/state"): "threads:read",
    ("GET", "/threads/{thread_id}/history"): "threads:read",
    ("POST", "/tickets"): "runs:read",
}
"""(method, path) → scope. A secured route that is missing here cannot be built."""

UNSCOPED = frozenset(
    {
        ("GET", "/verify-token"),
        ("POST", "/verify-token"),
        ("GET", "/users/me"),
        ("GET", "/userinfo"),
        ("POST", "/userinfo"),
    }
)
"""What everybody may ask who is somebody: it tells him about himself."""

SOCKET_ROUTE = ("GET", "/threads/{thread_id}/ws")
SOCKET_SCOPE = "runs:read"
"""What opening a WebSocket wants; each command on it wants the scope of its route."""


def find_scope(method: str, path: str) -> str | None:
    """None: the route wants a credential, and no scope. Raises KeyError."""
    route = method, path
    return None if route in UNSCOPED else SCOPES[route]
