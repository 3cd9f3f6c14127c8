"""Which scope each route wants: the one table."""

from collections.abc import Mapping

SCOPES: Mapping[tuple[str, str], str] = {
    ("GET", "/agents"): "agents:read",
    ("GET", "/threads"): "threads:read",
    ("POST", "/threads"): "threads:write",
    ("GET", "/threads/{thread_id}"): "threads:read",
    ("PATCH", "/threads/{thread_id}"): "threads:write",
    ("DELETE", "/threads/{thread_id}"): "threads:write",
    ("GET", "/threads/{thread_id}/messages"): "threads:read",
    ("POST", "/threads/{thread_id}/messages"): "runs:create",
    ("GET", "/threads/{thread_id}/runs"): "runs:read",
    ("GET", "/threads/{thread_id}/runs/{run_id}"): "runs:read",
    ("GET", "/threads/{thread_id}/runs/{run_id}/events"): "runs:read",
    ("POST", "/threads/{thread_id}/runs/{run_id}/cancel"): "runs:cancel",
    ("POST", "/threads/{thread_id}/runs/{run_id}/resume"): "runs:create",
    ("GET", "/interrupts"): "runs:read",
}
"""(method, path) → scope. A secured route that is missing here cannot be built."""
