"""An OAuth 2.0 and OpenID Connect provider for development: anybody logs in as anybody.

It needs the extra `demo`, listens on this machine alone, and forgets everything when it ends.
"""

from agentflow_server.demo.site import create_provider

__all__ = ["create_provider"]
