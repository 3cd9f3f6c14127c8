"""The one place that credentials are sent to."""

import httpx2

from agentflow_server.client.errors import AgentflowClientError


class Origin:
    """A server's URL: scheme, host, port, and the path it is mounted under."""

    def __init__(self, url: str) -> None:
        """Raises ValueError."""
        self._base = _parse(url)
        if self._base.query or self._base.fragment:
            raise ValueError("expected the URL of a server, without a query or a fragment")
        self._text = str(self._base).rstrip("/")

    def __str__(self) -> str:
        return self._text

    def find_url(self, path: str) -> str:
        """The URL of a path below it, or of a URL that `find_own` has let pass."""
        return f"{self._text}{path}" if path.startswith("/") else path

    def find_own(self, url: str) -> str:
        """`url`, absolute. Raises AgentflowClientError when it leads to somebody else."""
        if "://" not in url:
            return f"{self._text}/{url.lstrip('/')}"
        try:
            found = _parse(url)
        except ValueError as error:
            raise AgentflowClientError(str(error), code="foreign_origin") from None
        if _key(found) != _key(self._base):
            raise AgentflowClientError(
                f"the credential is for {self._text}, and is not sent to {found.host}",
                code="foreign_origin",
            )
        return str(found)


def _parse(url: str) -> httpx2.URL:
    try:
        found = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise ValueError("expected a URL such as https://agents.example.com") from None
    if found.scheme not in {"https", "http"} or not found.host:
        raise ValueError("expected a URL such as https://agents.example.com")
    if found.userinfo:
        raise ValueError(
            "a URL with a user name or a password in it ends up in logs: leave them out"
        )
    return found


def _key(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}[url.scheme]
