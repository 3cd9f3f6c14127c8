"""How a credential goes with a request: where it stands, and to whom it may be shown."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import httpx2

Origin = tuple[str, str, int | None]
_PORTS = {"https": 443, "http": 80}


def origin_of(url: httpx2.URL) -> Origin:
    return (url.scheme, url.host, url.port or _PORTS.get(url.scheme))


def origins_of(urls: Iterable[str]) -> frozenset[Origin]:
    return frozenset(origin_of(httpx2.URL(url)) for url in urls)


@dataclass(frozen=True, slots=True)
class Presentation:
    """The header, the parameter or the cookie that holds it."""

    place: Literal["header", "query", "cookie"]
    name: str
    prefix: str = ""

    def present(self, request: httpx2.Request, credential: str) -> httpx2.Request:
        """A copy with the credential; the request itself is shown to logs and kept by answers."""
        url, headers = request.url, request.headers.copy()
        match self.place:
            case "header":
                headers[self.name] = self.prefix + credential
            case "query":
                url = url.copy_set_param(self.name, credential)
            case "cookie":
                others = [headers["Cookie"]] if "Cookie" in headers else []
                headers["Cookie"] = "; ".join([*others, f"{self.name}={credential}"])
        return httpx2.Request(
            request.method,
            url,
            headers=headers,
            stream=request.stream,
            extensions=request.extensions,
        )

    def conceal(self, response: httpx2.Response, credential: str) -> None:
        """Take out of a redirect what it repeats of the query: it is followed and logged."""
        location = response.headers.get("Location")
        if self.place != "query" or location is None:
            return
        try:
            url = httpx2.URL(location)
        except httpx2.InvalidURL:
            return  # the client says so
        if credential in url.params.get_list(self.name):
            response.headers["Location"] = str(url.copy_remove_param(self.name))


BEARER = Presentation("header", "Authorization", "Bearer ")
BASIC = Presentation("header", "Authorization", "Basic ")


def encode_basic(username: str, password: str) -> str:
    """RFC 7617, in UTF-8."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()
