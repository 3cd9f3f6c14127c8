"""The whole flow over real HTTP: log in, create a client, allow it, and act for the user."""

import jwt
import pytest
from authlib.oidc.discovery import OpenIDProviderMetadata


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic", "none"])
def test_a_client_learns_whom_it_acts_for(method, provider, browse, register):
    app = register(token_endpoint_auth_method=method)
    tokens = app.connect(browse("alice"))
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["scope"] == "openid profile"
    me = app.me(tokens["access_token"])
    assert me.headers["cache-control"] == "no-store"
    assert me.json().keys() == {"sub", "name", "preferred_username"}
    assert me.json()["name"] == "alice"


def test_two_users_each_see_themselves(browse, register):
    app = register()
    alice, bob = (app.connect(browse(name))["access_token"] for name in ("alice", "bob"))
    assert [app.me(token).json()["name"] for token in (alice, bob)] == ["alice", "bob"]
    assert app.me(alice).json()["sub"] != app.me(bob).json()["sub"]


def test_the_answer_has_the_state_and_the_issuer(provider, browse, register):
    answer = register().authorize(browse("alice"))
    assert answer.keys() == {"code", "state", "iss"}
    assert (answer["state"], answer["iss"]) == ("the state", provider.url)


def test_denying_is_told_to_the_client(provider, browse, register):
    answer = register().authorize(browse("alice"), decision="deny")
    assert "code" not in answer
    assert (answer["error"], answer["state"], answer["iss"]) == (
        "access_denied",
        "the state",
        provider.url,
    )


def test_the_id_token_is_signed_with_the_published_key(provider, browse, register):
    app = register()
    metadata = app.endpoint.get("/.well-known/openid-configuration").json()
    tokens = app.connect(browse("alice"), nonce="once")
    (key,) = jwt.PyJWKSet(app.endpoint.get(metadata["jwks_uri"]).json()["keys"]).keys
    claims = jwt.decode(
        tokens["id_token"], key, ["RS256"], audience=app.id, issuer=metadata["issuer"]
    )
    assert (claims["name"], claims["nonce"]) == ("alice", "once")
    assert jwt.get_unverified_header(tokens["id_token"])["kid"] == key.key_id
    assert "d" not in app.endpoint.get(metadata["jwks_uri"]).json()["keys"][0]


def test_without_openid_there_is_no_id_token(browse, register):
    assert "id_token" not in register().connect(browse("alice"), scope="profile")


def test_the_metadata_is_what_openid_connect_and_rfc_8414_want(provider, browse):
    found = browse().get("/.well-known/openid-configuration").json()
    OpenIDProviderMetadata(found).validate()
    assert found["issuer"] == provider.url
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert browse().get("/.well-known/oauth-authorization-server").json() == found


def test_whoever_is_not_logged_in_logs_in_on_the_way(browse, register, read_redirect):
    app, browser = register(), browse()
    page = browser.get("/oauth/authorize", params=app.ask())
    assert 'name="username"' in page.text
    assert 'name="decision"' not in page.text
    page = browser.post("/oauth/authorize", params=app.ask(), data={"username": "bob"})
    assert "<strong>test</strong> asks <strong>bob</strong>" in page.text
    answer = browser.post("/oauth/authorize", params=app.ask(), data={"decision": "allow"})
    tokens = app.exchange(read_redirect(answer)["code"]).json()
    assert app.me(tokens["access_token"]).json()["name"] == "bob"


def test_nobody_allows_anything_before_logging_in(browse, register):
    app = register()
    page = browse().post("/oauth/authorize", params=app.ask(), data={"decision": "allow"})
    assert page.status_code == 200
    assert 'name="username"' in page.text


def test_the_consent_page_says_who_asks_for_what_and_lets_the_form_go_there_alone(browse, register):
    app = register(client_name="<b>Tool</b>")
    page = browse("alice").get("/oauth/authorize", params=app.ask())
    assert "<strong>&lt;b&gt;Tool&lt;/b&gt;</strong>" in page.text
    assert "<li>openid</li><li>profile</li>" in page.text
    assert "form-action 'self' http://localhost:8000;" in page.headers["content-security-policy"]


@pytest.mark.parametrize("redirect_uri", ["http://[::1]:8000/back"])
def test_a_policy_that_cannot_name_the_address_names_its_scheme(redirect_uri, browse, register):
    app = register(redirect_uri=redirect_uri)
    page = browse("alice").get("/oauth/authorize", params=app.ask(redirect_uri=redirect_uri))
    assert "form-action 'self' http:;" in page.headers["content-security-policy"]


def test_prompt_login_asks_who_it_is_once_more(browse, register, read_redirect):
    app, browser = register(), browse("alice")
    wanted = app.ask(prompt="login")
    assert 'name="decision"' not in browser.get("/oauth/authorize", params=wanted).text
    page = browser.post("/oauth/authorize", params=wanted, data={"username": "bob"})
    assert "<strong>bob</strong>" in page.text
    answer = browser.post("/oauth/authorize", params=wanted, data={"decision": "allow"})
    tokens = app.exchange(read_redirect(answer)["code"]).json()
    assert app.me(tokens["access_token"]).json()["name"] == "bob"


def test_prompt_none_shows_no_page(browse, register, read_redirect):
    app = register()
    wanted = app.ask(prompt="none")
    alices = browse("alice").get("/oauth/authorize", params=wanted)
    assert read_redirect(alices)["error"] == "consent_required"
    strangers = browse().get("/oauth/authorize", params=wanted)
    assert read_redirect(strangers)["error"] == "login_required"


def test_without_a_scope_the_client_gets_what_it_may_have(browse, register):
    assert register().connect(browse("alice"), scope=None)["scope"] == "openid profile email"


def test_the_email_goes_with_its_scope(browse, register):
    app = register()
    tokens = app.connect(browse("alice"), scope="openid email")
    me = app.me(tokens["access_token"]).json()
    assert me.keys() == {"sub", "email", "email_verified"}


def test_refreshing_brings_new_tokens_and_the_old_refresh_token_is_good_no_more(browse, register):
    app = register()
    first = app.connect(browse("alice"))
    second = app.refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert app.me(second["access_token"]).json()["name"] == "alice"
    again = app.refresh(first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    # Somebody has stolen one of them; nobody can know who.
    assert app.me(second["access_token"]).status_code == 401
    assert app.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_refresh_may_ask_for_less(browse, register):
    app = register()
    tokens = app.connect(browse("alice"))
    assert app.refresh(tokens["refresh_token"], scope="openid").json()["scope"] == "openid"


def test_a_client_that_may_not_refresh_gets_no_refresh_token(browse, register):
    tokens = register(grant_type="authorization_code").connect(browse("alice"))
    assert "refresh_token" not in tokens


def test_an_access_token_expires(provider, browse, register):
    app = register()
    tokens = app.connect(browse("alice"))
    provider.clock.now += 3600
    refused = app.me(tokens["access_token"])
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    renewed = app.refresh(tokens["refresh_token"]).json()
    assert app.me(renewed["access_token"]).status_code == 200


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revoking_a_token_ends_what_it_belongs_to(kind, browse, register):
    app = register()
    tokens = app.connect(browse("alice"))
    assert app.post("/oauth/revoke", {"token": tokens[kind]}).status_code == 200
    assert app.me(tokens["access_token"]).status_code == 401
    assert app.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_revoking_what_is_unknown_is_no_error(register):
    assert register().post("/oauth/revoke", {"token": "unknown"}).status_code == 200


def test_nobody_revokes_the_tokens_of_another_client(browse, register):
    app, other = register(), register()
    tokens = app.connect(browse("alice"))
    assert other.post("/oauth/revoke", {"token": tokens["access_token"]}).status_code == 400
    assert app.me(tokens["access_token"]).status_code == 200


def test_the_user_disconnects_a_client(browse, register):
    app = register(client_name="Calendar reader")
    alice, bob = browse("alice"), browse("bob")
    hers, his = app.connect(alice), app.connect(bob)
    assert "Calendar reader" in alice.get("/").text
    assert alice.post("/disconnect", data={"client_id": app.id}).status_code == 303
    assert "Calendar reader" not in alice.get("/").text
    assert app.me(hers["access_token"]).status_code == 401
    assert app.refresh(hers["refresh_token"]).status_code == 400
    assert app.me(his["access_token"]).status_code == 200
