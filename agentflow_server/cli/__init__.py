"""The command line. Exit codes: 0 fine, 1 cannot listen, 2 the configuration or the arguments."""

from agentflow_server.cli.main import app

__all__ = ["app"]
