"""How we connect to a PostgreSQL database: what its URL says, and our own words for the rest."""

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from agentflow_server.errors import ConfigError

# Only what the URL does not say itself. A host that vanishes is noticed within half a minute.
_DEFAULTS = {
    "fallback_application_name": "agentflow",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}


def add_defaults(url: str) -> str:
    """What psycopg connects with. Raises ConfigError."""
    try:
        return make_conninfo("", **{**_DEFAULTS, **conninfo_to_dict(url)})
    except psycopg.ProgrammingError:
        # Its text may repeat the password.
        raise ConfigError("database: this is not a URL that PostgreSQL understands") from None
