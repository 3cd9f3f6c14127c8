"""The provider's addresses."""

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oidc.core.errors import ConsentRequiredError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from agentflow_server.demo.pages import (
    consent_page,
    create_client_page,
    home_page,
    refusal_page,
    sign_up_page,
)
from agentflow_server.demo.provider import Provider
from agentflow_server.demo.reading import WebRequest, parse_fields, read_form
from agentflow_server.demo.records import Memory, Unusable, User, read_client

COOKIE = "agentflow-demo-oauth"
_SEE_OTHER = 303
_OWN_SITE = frozenset({"same-origin", "none"})


def create_provider(
    issuer: str, *, token_lifetime: int = 3600, clock: Callable[[], float] = time.time
) -> Starlette:
    """The application for `issuer`, a URL with its port. Access tokens are good for that many seconds."""
    provider = Provider(issuer, Memory(clock), token_lifetime=token_lifetime)
    # Under a name that leads to this machine, any page on the web could read what is here.
    hosts = [urlsplit(issuer).netloc.rpartition(":")[0], "localhost", "127.0.0.1"]
    return Starlette(
        routes=_Site(provider).list_routes(),
        middleware=[Middleware(TrustedHostMiddleware, hosts, www_redirect=False)],
        exception_handlers={OAuth2Error: lambda _, error: provider.refuse(error)},
    )


class _Site:
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._memory = provider.memory

    def list_routes(self) -> list[Route]:
        return [
            Route("/", self.show_home),
            Route("/", self.sign_up, methods=["POST"]),
            Route("/logout", self.log_out, methods=["POST"]),
            Route("/create_client", self.create_client, methods=["GET", "POST"]),
            Route("/disconnect", self.disconnect, methods=["POST"]),
            Route("/oauth/authorize", self.authorize, methods=["GET", "POST"]),
            Route("/oauth/token", self.grant, methods=["POST"]),
            Route("/oauth/revoke", self.revoke, methods=["POST"]),
            Route("/api/me", self.show_me),
            Route("/.well-known/openid-configuration", self.describe),
            Route("/.well-known/oauth-authorization-server", self.describe),
            Route("/.well-known/jwks.json", self.list_keys),
        ]

    async def show_home(self, request: Request) -> Response:
        user = self._find_user(request)
        if user is None:
            return sign_up_page()
        clients = [client for client in self._memory.clients.values() if client.owner == user]
        return home_page(user, clients, self._memory.list_connected(user))

    async def sign_up(self, request: Request) -> Response:
        form = await _read_own_form(request)
        try:
            session, _ = self._memory.log_in(form.get("username", ""))
        except Unusable as error:
            return sign_up_page(str(error))
        return _with_session(_go_home(), session)

    async def log_out(self, request: Request) -> Response:
        await _read_own_form(request)
        self._memory.log_out(_session_of(request))
        return _go_home()

    async def create_client(self, request: Request) -> Response:
        user = self._find_user(request)
        if user is None:
            return _go_home()
        if request.method != "POST":
            return create_client_page({})
        form = await _read_own_form(request)
        try:
            self._memory.add_client(read_client(form, user))
        except Unusable as error:
            return create_client_page(form, str(error))
        return _go_home()

    async def disconnect(self, request: Request) -> Response:
        form = await _read_own_form(request)
        user = self._find_user(request)
        if user is not None:
            self._memory.disconnect(user, form.get("client_id", ""))
        return _go_home()

    async def authorize(self, request: Request) -> Response:
        """RFC 6749 section 3.1: log in, then allow or deny."""
        form = await _read_own_form(request) if request.method == "POST" else {}
        try:
            wanted = self._read_query(request)
            return self._decide(request, wanted, form)
        except OAuth2Error as error:
            if error.redirect_uri:
                return self._provider.refuse(error)
            return refusal_page(f"{error.error}: {error.get_error_description()}")

    def _decide(self, request: Request, wanted: WebRequest, form: Mapping[str, str]) -> Response:
        user, session, problem = self._find_user(request), None, None
        if "username" in form:
            try:
                session, user = self._memory.log_in(form["username"])
            except Unusable as error:
                user, problem = None, str(error)
        grant = self._provider.get_consent_grant(wanted, user)
        if wanted.payload.data.get("prompt") == "none":
            # Nobody's consent is remembered here.
            raise ConsentRequiredError(redirect_uri=grant.redirect_uri, state=wanted.payload.state)
        asks_again = grant.prompt == "login" and request.method == "GET"
        if user is None or asks_again:
            return sign_up_page(problem, for_client=grant.client)
        if "decision" not in form:
            page = consent_page(grant.client, user, wanted.scope, grant.redirect_uri)
            return _with_session(page, session) if session else page
        granting = user if form["decision"] == "allow" else None
        answer: Response = self._provider.create_authorization_response(wanted, granting, grant)
        return answer

    async def grant(self, request: Request) -> Response:
        answer: Response = self._provider.create_token_response(await self._read_body(request))
        return answer

    async def revoke(self, request: Request) -> Response:
        wanted = await self._read_body(request)
        answer: Response = self._provider.create_endpoint_response("revocation", wanted)
        return answer

    async def show_me(self, request: Request) -> Response:
        """RFC 6750: whom the access token speaks for."""
        facts = self._provider.describe_bearer(self._read_query(request))
        return JSONResponse(facts, headers={"Cache-Control": "no-store"})

    async def describe(self, _request: Request) -> Response:
        return JSONResponse(self._provider.describe())

    async def list_keys(self, _request: Request) -> Response:
        return JSONResponse(self._provider.list_keys())

    def _read_query(self, request: Request) -> WebRequest:
        fields = parse_fields(request.scope["query_string"])
        return WebRequest(request, self._provider.issuer, fields)

    async def _read_body(self, request: Request) -> WebRequest:
        return WebRequest(request, self._provider.issuer, await read_form(request))

    def _find_user(self, request: Request) -> User | None:
        return self._memory.find_user(_session_of(request))


async def _read_own_form(request: Request) -> dict[str, str]:
    """A form of one of our pages. Raises OAuth2Error, also when another site has sent it."""
    if request.headers.get("sec-fetch-site", "none") not in _OWN_SITE:
        raise InvalidRequestError("This form belongs to another site.")
    return await read_form(request)


def _session_of(request: Request) -> str:
    return request.cookies.get(COOKIE, "")


def _with_session(response: Response, session: str) -> Response:
    response.set_cookie(COOKIE, session, httponly=True, samesite="lax")
    return response


def _go_home() -> Response:
    return RedirectResponse("/", _SEE_OTHER)
