"""Which scope each route wants: the one table."""

from collections.abc import Mapping

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
    ("GET", "/threads/{thread_id}/state"): "threads:read",
    ("GET", "/threads/{thread_id}/history"): "threads:read",
    ("POST", "/tickets"): "runs:read",
}
"""(method, path) → scope. A secured route that is missing here cannot be built."""

SOCKET_ROUTE = ("GET", "/threads/{thread_id}/ws")
SOCKET_SCOPE = "runs:read"
"""What opening a WebSocket wants; each command on it wants the scope of its route."""
