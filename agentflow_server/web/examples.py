"""What answers look like, for the OpenAPI document: one thread, asked once."""

from collections.abc import Mapping

from agentflow_server.models import JsonObject

_THREAD_ID = "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11"
_RUN_ID = "0190d5a2-91b0-7d4e-8f21-6a7c3e5d9b02"
_ASKED, _ANSWERED = "2026-11-22T09:30:00.123456Z", "2026-11-22T09:30:01.654321Z"

_THREAD: JsonObject = {
    "thread_id": _THREAD_ID,
    "name": "Six times seven",
    "status": "idle",
    "metadata": {"topic": "arithmetic"},
    "created_at": _ASKED,
    "updated_at": _ANSWERED,
    "interrupts": [],
}
_ANSWER: JsonObject = {
    "message_id": "0190d5a2-97aa-7b13-b0c5-2f4e8d6a1c03",
    "thread_id": _THREAD_ID,
    "run_id": _RUN_ID,
    "role": "assistant",
    "content": "6 * 7 is 42.",
    "created_at": _ANSWERED,
    "metadata": {},
}
_RUN: JsonObject = {
    "run_id": _RUN_ID,
    "thread_id": _THREAD_ID,
    "agent": "agent",
    "status": "success",
    "created_at": _ASKED,
    "started_at": _ASKED,
    "ended_at": _ANSWERED,
    "error": None,
    "interrupts": [],
    "attempt": 1,
    "start_after": None,
    "queue_position": None,
    "webhook": None,
}
_TURN: JsonObject = {
    "thread_id": _THREAD_ID,
    "run_id": _RUN_ID,
    "status": "success",
    "message": _ANSWER,
    "messages": [_ANSWER],
    "interrupts": [],
}

_USER_ID = "0190d5a2-7f3e-7a41-b2d6-3c9e8f1a5b04"
_VERIFIED: JsonObject = {
    "valid": True,
    "user_id": _USER_ID,
    "username": "alice",
    "scopes": ["threads:read", "runs:create"],
    "issued_at": "2026-11-22T09:30:00Z",
    "expires_at": "2026-11-22T09:45:00Z",
}
_USER: JsonObject = {
    "user_id": _USER_ID,
    "username": "alice",
    "roles": ["editor"],
    "scopes": [],
    "claims": {"department": "sales"},
    "created_at": _ASKED,
    "password_changed_at": _ASKED,
    "has_totp": False,
}

EXAMPLES: Mapping[str, JsonObject] = {
    "Thread": _THREAD,
    "Message": _ANSWER,
    "Run": _RUN,
    "TurnResult": _TURN,
    "VerifiedToken": _VERIFIED,
    "LocalUser": _USER,
}
"""By the name of the schema."""
