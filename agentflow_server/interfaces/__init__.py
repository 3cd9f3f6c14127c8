"""Everything a user may replace, with its promises in the docstrings."""

from agentflow_server.interfaces.agents import (
    Agent,
    AgentAsked,
    AgentEvent,
    CustomEvent,
    HasState,
    MessageCompleted,
    RunContext,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from agentflow_server.interfaces.engines import (
    Engine,
    EventBus,
    Subscription,
)
from agentflow_server.interfaces.grants import GrantStore
from agentflow_server.interfaces.guards import (
    Allowance,
    AuditLog,
    Authenticator,
    Authorizer,
    BaseAuth,
    RateLimiter,
)
from agentflow_server.interfaces.operations import OperatorStore
from agentflow_server.interfaces.stores import (
    CredentialStore,
    Store,
)
from agentflow_server.interfaces.users import UserStore
from agentflow_server.interfaces.webhooks import WebhookStore
from agentflow_server.models import Quota

__all__ = [
    "Agent",
    "AgentAsked",
    "AgentEvent",
    "Allowance",
    "AuditLog",
    "Authenticator",
    "Authorizer",
    "BaseAuth",
    "CredentialStore",
    "CustomEvent",
    "Engine",
    "EventBus",
    "GrantStore",
    "HasState",
    "MessageCompleted",
    "OperatorStore",
    "Quota",
    "RateLimiter",
    "RunContext",
    "Store",
    "Subscription",
    "TextDelta",
    "ToolCompleted",
    "ToolStarted",
    "UserStore",
    "WebhookStore",
]
