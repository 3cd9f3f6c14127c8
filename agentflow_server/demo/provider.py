"""The provider itself: Authlib's server with what this one allows, and what it keeps."""

import json
from collections.abc import Sequence
from typing import Any

from authlib.common.security import generate_token
from authlib.common.urls import add_params_to_uri
from authlib.oauth2 import AuthorizationServer, OAuth2Error, ResourceProtector
from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc6750 import BearerTokenGenerator, BearerTokenValidator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from joserfc.jwk import RSAKey
from starlette.responses import Response

from agentflow_server.demo.reading import WebRequest
from agentflow_server.demo.records import (
    AUTH_METHODS,
    GRANT_TYPES,
    RESPONSE_TYPES,
    Client,
    Code,
    Memory,
    Token,
    User,
)

_ALGORITHM = "RS256"
_FOUND = 302


class Provider(AuthorizationServer):
    """Authorization code with PKCE, refresh tokens that are replaced, and revocation."""

    def __init__(self, issuer: str, memory: Memory, *, token_lifetime: int) -> None:
        super().__init__()
        self.issuer = issuer
        self.memory = memory
        self.key = RSAKey.generate_key(2048, {"use": "sig", "alg": _ALGORITHM}, auto_kid=True)
        generator = BearerTokenGenerator(_make_token, _make_token, token_lifetime)
        self.register_token_generator("default", generator)
        self.register_grant(_CodeGrant, [_S256(), _IdToken(self)])
        self.register_grant(_RefreshGrant)
        self.register_endpoint(_Revocation)
        self._bearers = ResourceProtector()
        self._bearers.register_token_validator(_Bearer(memory))

    def query_client(self, client_id: str) -> Client | None:
        return self.memory.clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: WebRequest) -> None:
        origin: Code | Token = request.refresh_token or request.authorization_code
        self.memory.add_token(
            Token(
                access_token=token["access_token"],
                refresh_token=token.get("refresh_token"),
                client=request.client,
                user=request.user,
                scope=token.get("scope", ""),
                expires_at=self.memory.clock() + token["expires_in"],
                family=origin.family,
                clock=self.memory.clock,
            )
        )

    def create_oauth2_request(self, request: WebRequest) -> WebRequest:
        return request

    def send_signal(self, name: str, *_args: Any, **_kwargs: Any) -> None:
        """Nobody listens."""

    def handle_response(
        self, status: int, body: str | dict[str, Any], headers: Sequence[tuple[str, str]]
    ) -> Response:
        sent = dict(headers)
        if status == _FOUND:
            # RFC 9207: success or not. Authlib's own extension leaves some of the errors out.
            sent["Location"] = add_params_to_uri(sent["Location"], [("iss", self.issuer)])
            sent |= {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(json.dumps(body) if isinstance(body, dict) else body, status, sent)

    def refuse(self, error: OAuth2Error) -> Response:
        return self.handle_response(*error())

    def describe_bearer(self, request: WebRequest) -> dict[str, Any]:
        """Whose access token it is. Raises OAuth2Error."""
        token: Token = self._bearers.validate_request(["openid", "profile"], request)
        return describe_user(token.user, token.scope)

    def describe(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0, RFC 8414."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/oauth/authorize",
            "token_endpoint": f"{self.issuer}/oauth/token",
            "revocation_endpoint": f"{self.issuer}/oauth/revoke",
            "userinfo_endpoint": f"{self.issuer}/api/me",
            "jwks_uri": f"{self.issuer}/.well-known/jwks.json",
            "scopes_supported": ["openid", "profile", "email"],
            "response_types_supported": list(RESPONSE_TYPES),
            "response_modes_supported": ["query"],
            "grant_types_supported": list(GRANT_TYPES),
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
            "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [_ALGORITHM],
            "authorization_response_iss_parameter_supported": True,
        }

    def list_keys(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(private=False)]}


def describe_user(user: User, scope: str) -> dict[str, Any]:
    claims = UserInfo(
        sub=str(user.id),
        name=user.name,
        preferred_username=user.name,
        email=f"user{user.id}@example.com",
        email_verified=False,
    )
    return {"sub": str(user.id), **claims.filter(scope)}


def _make_token(**_facts: Any) -> str:
    return str(generate_token(48))


class _CodeGrant(AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def save_authorization_code(self, code: str, request: WebRequest) -> None:
        memory: Memory = self.server.memory
        sent = request.payload.data
        memory.add_code(
            Code(
                code=code,
                client=request.client,
                user=request.user,
                scope=request.scope,
                redirect_uri=sent.get("redirect_uri"),
                code_challenge=sent.get("code_challenge"),
                nonce=sent.get("nonce"),
                made_at=memory.clock(),
            )
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        memory: Memory = self.server.memory
        return memory.find_code(code, client)

    def delete_authorization_code(self, authorization_code: Code) -> None:
        self.server.memory.spend_code(authorization_code)

    def authenticate_user(self, authorization_code: Code) -> User:
        return authorization_code.user


class _RefreshGrant(RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        """One that comes again after it was replaced has been stolen."""
        memory: Memory = self.server.memory
        token = memory.find_refresh_token(refresh_token)
        if token is None or token.revoked or not token.check_client(self.request.client):
            return None
        if token.is_spent:
            memory.revoke_family(token.family)
            return None
        return token

    def authenticate_user(self, refresh_token: Token) -> User:
        return refresh_token.user

    def revoke_old_credential(self, refresh_token: Token) -> None:
        refresh_token.is_spent = True


class _S256(CodeChallenge):
    """PKCE with SHA-256, which a client without a secret has to use."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: _CodeGrant, redirect_uri: str) -> None:
        super().validate_code_challenge(grant, redirect_uri)
        sent = grant.request.payload.data
        if "code_challenge" not in sent:
            if grant.client.auth_method == "none":
                raise InvalidRequestError("A public client needs a 'code_challenge'.")
        elif sent.get("code_challenge_method") != "S256":
            raise InvalidRequestError("Expected 'code_challenge_method=S256'.")


class _IdToken(OpenIDCode):
    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self._provider = provider

    def resolve_client_private_key(self, _client: Client) -> RSAKey:
        return self._provider.key

    def get_client_claims(self, _client: Client) -> dict[str, Any]:
        return {"iss": self._provider.issuer}

    def get_encode_header(self, _client: Client) -> dict[str, Any]:
        return {"alg": _ALGORITHM, "kid": self._provider.key.kid}

    def exists_nonce(self, _nonce: str, _request: WebRequest) -> bool:
        # Whether it comes twice is for the client to see: that is what it sends it for.
        return False

    def generate_user_info(self, user: User, scope: str) -> dict[str, Any]:
        return describe_user(user, scope)


class _Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS = AUTH_METHODS

    def query_token(self, value: str, _hint: str | None) -> Token | None:
        memory: Memory = self.server.memory
        return memory.find_refresh_token(value) or memory.find_access_token(value)

    def revoke_token(self, token: Token, _request: WebRequest) -> None:
        self.server.memory.revoke_family(token.family)


class _Bearer(BearerTokenValidator):
    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory

    def authenticate_token(self, token_string: str) -> Token | None:
        return self._memory.find_access_token(token_string)
