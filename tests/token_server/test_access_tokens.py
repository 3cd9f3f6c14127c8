"""What is in an access token, and that the ordinary door takes it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from jwt.algorithms import ECAlgorithm

from agentflow_server.errors import AuthUnavailable, Forbidden, NotAuthenticated
from agentflow_server.models import Principal, UserChange
from agentflow_server.token_server import ClientLogin, make_signing_key


def unverified(token):
    options = {"verify_signature": False}
    return jwt.get_unverified_header(token), jwt.decode(token, options=options)


async def test_r69_a_token_says_who_issued_it_for_whom_and_for_how_long(scene, caller):
    answer = await caller.log_in()
    header, claims = unverified(answer.access_token)
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    assert header["kid"]
    assert claims.pop("iat") <= scene.clock.now
    assert claims.pop("exp") == int(scene.clock.now) + 900
    assert claims.pop("auth_time") == int(scene.clock.now)
    assert claims.pop("jti") == answer.token_id
    assert claims.pop("sid")
    issuer = scene.config.issuer
    assert claims == {
        "iss": issuer,
        "aud": issuer,
        "sub": scene.alice.user_id,
        "user_id": scene.alice.user_id,
        "username": "alice",
        "client_id": "own",
        "scope": "threads:read",
        "roles": ["editor"],
        "team": "red",
    }


async def test_r69_the_ordinary_verifier_accepts_a_token_until_it_expires(scene, caller):
    answer = await caller.log_in()
    principal = await scene.judge(answer.access_token)
    assert (principal.id, principal.issuer) == (scene.alice.user_id, scene.config.issuer)
    assert principal.roles == {"editor"}
    assert principal.scopes == {"threads:read"}
    assert principal.expires_at == int(scene.clock.now) + 900
    scene.clock.now -= 10_000
    old = await caller.log_in()
    with pytest.raises(NotAuthenticated, match="expired"):
        await scene.judge(old.access_token)


async def test_two_tokens_never_have_the_same_id(caller):
    assert (await caller.log_in()).token_id != (await caller.log_in()).token_id


async def test_a_claim_that_means_something_in_a_token_is_never_a_users_own(scene, caller):
    await scene.store.update_user(
        scene.alice.user_id,
        UserChange(claims={"aud": "me", "roles": ["admin"], "typ": "id", "sub": "bob", "a": 1}),
    )
    _, claims = unverified((await caller.log_in()).access_token)
    assert (claims["aud"], claims["sub"]) == (scene.config.issuer, scene.alice.user_id)
    assert claims["roles"] == ["editor"]
    assert "typ" not in claims
    assert claims["a"] == 1


async def test_a_token_of_another_audience_or_issuer_is_refused(scene, call_from):
    for change in ({"audience": "https://other"}, {"issuer": "https://other"}):
        server = scene.make_server(**change)
        await server.open()
        answer = await call_from(server).log_in()
        with pytest.raises(NotAuthenticated):
            await scene.judge(answer.access_token)
        await server.close()


async def test_a_client_that_acts_for_itself_is_no_user(scene, caller, client_secret):
    answer = await caller.ask("client_credentials", "robot", secret=client_secret)
    principal = await scene.judge(answer.access_token)
    assert principal.id == answer.user_id == "client:robot"
    assert principal.scopes == {"runs:create", "threads:read"}
    assert answer.refresh_token is None
    asked = caller.ask("client_credentials", "robot", secret=client_secret, scope="runs:create x")
    assert (await asked).scope == "runs:create"


async def test_the_published_keys_verify_a_token_and_hold_nothing_private(server, caller):
    answer = await caller.log_in()
    (jwk,) = (await server.jwks())["keys"]
    assert {"d", "p", "q"}.isdisjoint(jwk)
    assert (jwk["kty"], jwk["crv"], jwk["alg"], jwk["use"]) == ("EC", "P-256", "ES256", "sig")
    assert jwk["kid"] == unverified(answer.access_token)[0]["kid"]
    key = ECAlgorithm.from_jwk(json.dumps(jwk))
    verified = jwt.decode(answer.access_token, key, algorithms=["ES256"], audience=server.issuer)
    assert verified["sub"]


async def test_several_servers_that_start_have_one_key(scene, server):
    other = scene.make_server()
    await other.open()
    assert await other.jwks() == await server.jwks()
    await other.close()


async def test_a_new_key_is_published_before_it_signs_and_old_tokens_stay_good(
    scene, server, caller
):
    before = await caller.log_in()
    now = datetime.fromtimestamp(scene.clock.now, UTC)
    key = make_signing_key(now, signs_from=now + timedelta(seconds=600))
    await scene.store.add_signing_key(key, others_retire_at=now + timedelta(seconds=5000))
    scene.clock.now += 31
    assert len((await server.jwks())["keys"]) == 2
    old_kid = unverified(before.access_token)[0]["kid"]
    assert unverified((await caller.log_in()).access_token)[0]["kid"] == old_kid
    scene.clock.now += 600
    after = await caller.log_in()
    assert unverified(after.access_token)[0]["kid"] == key.kid
    await scene.judge(before.access_token)


async def test_what_a_removed_key_has_signed_is_refused(scene, caller):
    answer = await caller.log_in()
    await scene.store.remove_signing_key(unverified(answer.access_token)[0]["kid"])
    with pytest.raises(NotAuthenticated):
        await scene.judge(answer.access_token)


async def test_without_any_key_there_is_no_token(scene, caller):
    answer = await caller.log_in()
    await scene.store.remove_signing_key(unverified(answer.access_token)[0]["kid"])
    scene.clock.now += 31
    with pytest.raises(AuthUnavailable):
        await caller.log_in()


async def test_with_a_key_that_cannot_be_used_there_is_no_token(scene, caller):
    now = datetime.fromtimestamp(scene.clock.now, UTC) + timedelta(seconds=1)
    assert await caller.log_in()
    bad = replace(make_signing_key(now), private_pem="garbage")
    await scene.store.add_signing_key(bad, others_retire_at=now + timedelta(seconds=5000))
    scene.clock.now += 31
    with pytest.raises(AuthUnavailable):
        await caller.log_in()


async def test_userinfo_is_for_tokens_of_this_server(server):
    with pytest.raises(Forbidden):
        await server.userinfo(Principal("alice", issuer="https://id.example.com"))


async def test_userinfo_is_what_the_database_says_now(scene, server, caller):
    principal = await scene.judge((await caller.log_in()).access_token)
    await scene.store.update_user(scene.alice.user_id, UserChange(claims={"team": "blue"}))
    assert await server.userinfo(principal) == {
        "sub": scene.alice.user_id,
        "user_id": scene.alice.user_id,
        "username": "alice",
        "preferred_username": "alice",
        "roles": ["editor"],
        "scope": "threads:read",
        "team": "blue",
    }
    await scene.store.update_user(scene.alice.user_id, UserChange(disabled=True))
    with pytest.raises(NotAuthenticated):
        await server.userinfo(principal)
    await scene.store.remove_user(scene.alice.user_id)
    with pytest.raises(NotAuthenticated):
        await server.userinfo(principal)


async def test_userinfo_of_a_client_is_its_id(scene, server, caller, client_secret):
    answer = await caller.ask("client_credentials", "robot", secret=client_secret)
    principal = await scene.judge(answer.access_token)
    found = await server.userinfo(principal)
    assert (found["sub"], "username" in found) == ("client:robot", False)


async def test_the_metadata_name_what_there_is(server):
    metadata = server.metadata()
    assert metadata["issuer"] == server.issuer
    assert metadata["token_endpoint"] == f"{server.issuer}/token"
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["response_types_supported"] == ["code"]
    assert "client_credentials" in metadata["grant_types_supported"]
    assert {"runs:create", "threads:read", "threads:write"} < set(metadata["scopes_supported"])


async def test_an_access_token_that_is_given_up_is_refused_and_its_session_goes_on(
    scene, server, caller
):
    answer = await caller.log_in()
    await server.revoke(answer.access_token, "refresh_token", ClientLogin("web"))
    await scene.judge(answer.access_token)  # another client's
    await server.revoke(answer.access_token, "refresh_token", ClientLogin("own"))
    with pytest.raises(NotAuthenticated):
        await scene.judge(answer.access_token)
    await scene.judge((await caller.refresh(answer.refresh_token)).access_token)
