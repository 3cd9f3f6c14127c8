"""What other servers say over HTTP: in bounded time and size, without redirects."""

import asyncio
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

TIMEOUT = 5.0
MAX_BYTES = 512 * 1024


class FetchFailed(Exception):
    """Why there is no answer, never what was sent; `status` if there was an HTTP answer."""

    def __init__(self, why: str, *, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


def find_url_problem(url: str) -> str | None:
    """What is wrong with asking `url` for secrets or keys; None when nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"https", "http"} or not host:
        return "is not an https URL"
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password"
    if "#" in url or not url.isprintable() or " " in url:
        return "has a fragment, a space or an unprintable character"
    if parts.scheme == "http" and not is_loopback(url):
        return "must be https (http is for loopback addresses only)"
    return None


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Fetcher:
    """Asks servers; every answer but a plain 200 within the limits raises FetchFailed."""

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT,
        max_bytes: int = MAX_BYTES,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> bytes:
        return await self._ask("GET", url, headers=headers or {})

    async def post(self, url: str, form: Mapping[str, str], *, headers: Mapping[str, str]) -> bytes:
        return await self._ask("POST", url, headers=headers, form=form)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
    ) -> bytes:
        if problem := find_url_problem(url):
            raise FetchFailed(f"{url!a} {problem}")
        if self._client is None:
            self._client = self._make_client()
        try:
            # Around everything: a server that sends a byte now and then must not last for ever.
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(
                    method, url, data=form, headers={**_HEADERS, **headers}
                ) as response,
            ):
                return await self._read(url, response)
        except TimeoutError:
            raise FetchFailed(f"{url} did not answer within {self._timeout:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            raise FetchFailed(f"{url}: {type(exc).__name__}: {exc}") from exc

    async def _read(self, url: str, response: httpx2.Response) -> bytes:
        if response.status_code != 200:
            raise FetchFailed(f"{url} answered {response.status_code}", status=response.status_code)
        # Compressed, a small answer could be a very large one.
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchFailed(f"{url} sent a compressed answer, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise FetchFailed(f"{url} sent more than {self._max_bytes} bytes")
        return bytes(body)

    def _make_client(self) -> httpx2.AsyncClient:
        """At the first use, since reading the system's certificates takes a while."""
        return httpx2.AsyncClient(
            timeout=self._timeout,
            follow_redirects=False,
            transport=self._transport,
            # A proxy of the environment cannot reach our own loopback addresses.
            mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
        )


_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
