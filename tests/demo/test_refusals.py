"""What the provider does not do, and what it says instead."""

import base64

import pytest


def test_an_unknown_redirect_uri_is_never_redirected_to(browse, register):
    app = register()
    for uri in ("http://localhost:8000/other", 'http://evil.example/"\\', "javascript:alert(1)"):
        page = browse("alice").get("/oauth/authorize", params=app.ask(redirect_uri=uri))
        assert page.status_code == 400
        assert "location" not in page.headers
        assert "invalid_request" in page.text


def test_an_unknown_client_is_shown_no_consent_page(browse, register):
    for client in ("unknown", None):
        page = browse("alice").get("/oauth/authorize", params=register().ask(client_id=client))
        assert page.status_code == 400
        assert "invalid_client" in page.text


def test_a_redirect_uri_may_be_left_out_when_there_is_one_alone(browse, register):
    app = register()
    answer = app.authorize(browse("alice"), redirect_uri=None)
    assert app.exchange(answer["code"], redirect_uri=None).status_code == 200
    several = register(redirect_uri="http://localhost/a\nhttp://localhost/b")
    page = browse("alice").get("/oauth/authorize", params=several.ask(redirect_uri=None))
    assert page.status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "openid admin"}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_what_the_client_asks_wrongly_it_hears(
    changes, error, provider, browse, register, read_redirect
):
    app = register()
    page = browse("alice").get("/oauth/authorize", params=app.ask(**changes))
    told = read_redirect(page)
    assert (told["error"], told["state"], told["iss"]) == (error, "the state", provider.url)


def test_a_public_client_needs_pkce(browse, register):
    app = register(token_endpoint_auth_method="none")
    told = app.authorize(browse("alice"), code_challenge=None, code_challenge_method=None)
    assert told["error"] == "invalid_request"
    code = app.authorize(browse("alice"))["code"]
    refused = app.exchange(code, code_verifier=None)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


def test_a_client_with_a_secret_may_do_without_pkce(browse, register):
    app = register()
    code = app.authorize(browse("alice"), code_challenge=None, code_challenge_method=None)["code"]
    assert app.exchange(code, code_verifier=None).status_code == 200


def test_another_verifier_is_refused(browse, register):
    app = register()
    code = app.authorize(browse("alice"))["code"]
    refused = app.exchange(code, code_verifier="x" * 43)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


def test_a_code_that_comes_twice_brings_nothing_and_ends_what_it_brought(browse, register):
    app = register()
    code = app.authorize(browse("alice"))["code"]
    tokens = app.exchange(code).json()
    assert app.me(tokens["access_token"]).status_code == 200
    again = app.exchange(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert app.me(tokens["access_token"]).status_code == 401


def test_a_code_is_good_for_its_client_its_redirect_uri_and_five_minutes(
    provider, browse, register
):
    app, other = register(), register()
    code = app.authorize(browse("alice"))["code"]
    assert other.exchange(code).json()["error"] == "invalid_grant"
    assert app.exchange(code, redirect_uri="http://other").json()["error"] == "invalid_grant"
    provider.clock.now += 300
    assert app.exchange(code).json()["error"] == "invalid_grant"


def test_a_wrong_secret_is_refused_in_either_place(browse, register):
    for method in ("client_secret_post", "client_secret_basic"):
        app = register(token_endpoint_auth_method=method)
        app.secret = "ümlaut"
        refused = app.exchange("code")
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def test_a_secret_is_accepted_only_as_the_client_was_registered_to_show_it(browse, register):
    app = register(token_endpoint_auth_method="client_secret_basic")
    code = app.authorize(browse("alice"))["code"]
    app.auth_method = "client_secret_post"
    assert app.exchange(code).status_code == 401
    app.auth_method = "client_secret_basic"
    assert app.exchange(code).status_code == 200


def test_the_token_endpoint_refuses_what_it_cannot_read(browse):
    client = browse()
    unreadable = base64.b64encode(b"\xff:\xff").decode()
    answer = client.post("/oauth/token", data={}, headers={"Authorization": f"Basic {unreadable}"})
    assert answer.status_code == 400, "an empty form has no Content-Type"
    form = {"grant_type": "authorization_code", "code": "c"}
    answer = client.post(
        "/oauth/token", data=form, headers={"Authorization": f"Basic {unreadable}"}
    )
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in ("grant_type=a&grant_type=b", "a=%ff", f"a={'x' * 65_536}"):
        answer = client.post("/oauth/token", content=body, headers=kind)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert client.post("/oauth/token", json={}).json()["error"] == "invalid_request"
    answer = client.post("/oauth/token", data={"grant_type": "password"})
    assert answer.json()["error"] == "unsupported_grant_type"
    assert client.get("/oauth/token").status_code == 405


def test_whose_token_it_is_stays_secret_without_one(browse, register):
    client = browse()
    assert client.get("/api/me").status_code == 401
    assert "www-authenticate" in client.get("/api/me").headers
    refused = client.get("/api/me", headers={"Authorization": "Bearer unknown"})
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
    app = register()
    tokens = app.connect(browse("alice"), scope="email")
    refused = app.me(tokens["access_token"])
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


def test_a_form_of_another_site_is_refused(browse, register):
    app, alice = register(), browse("alice")
    elsewhere = {"Sec-Fetch-Site": "same-site"}
    for path, form in (
        ("/oauth/authorize", {"decision": "allow"}),
        ("/create_client", {"client_name": "theirs"}),
        ("/disconnect", {"client_id": app.id}),
        ("/", {"username": "bob"}),
        ("/logout", {"a": "b"}),
    ):
        answer = alice.post(path, params=app.ask(), data=form, headers=elsewhere)
        assert answer.status_code == 400, path
        assert "location" not in answer.headers
    assert "<strong>alice</strong>" in alice.get("/").text


def test_another_name_for_this_machine_leads_nowhere(browse):
    assert browse().get("/", headers={"Host": "evil.example"}).status_code == 400
    assert browse().get("/", headers={"Host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize("name", ["  ", "x" * 65, "a\u202eb"])
def test_a_name_that_cannot_be_shown_is_no_name(name, browse, register):
    browser = browse()
    answer = browser.post("/", data={"username": name})
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    app = register()
    answer = browser.post("/oauth/authorize", params=app.ask(), data={"username": name})
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_name", " "),
        ("scope", "openid naïve"),
        ("redirect_uri", " "),
        ("redirect_uri", "javascript:alert(1)"),
        ("redirect_uri", "http://localhost/#fragment"),
        ("redirect_uri", "http://[broken"),
        ("grant_type", "password"),
        ("grant_type", ""),
        ("response_type", "token"),
        ("token_endpoint_auth_method", "private_key_jwt"),
    ],
)
def test_a_client_that_is_described_wrongly_is_not_created(field, value, browse, read_form):
    browser = browse("nobody's client")
    answer = browser.post("/create_client", data=read_form(**{field: value}))
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert 'value="https://test.com"' in answer.text, "what was typed is still there"
    assert "client-id" not in browser.get("/").text


def test_a_stranger_creates_no_client_and_sees_none(browse, register, read_form):
    app, stranger = register(), browse()
    assert stranger.get("/create_client").headers["location"] == "/"
    assert stranger.post("/create_client", data=read_form()).headers["location"] == "/"
    assert stranger.post("/disconnect", data={"client_id": app.id}).headers["location"] == "/"
    assert app.id not in stranger.get("/").text
    assert app.id not in browse("bob").get("/").text
    assert app.id in app.browser.get("/").text


def test_the_form_has_the_seven_fields(browse):
    page = browse("alice").get("/create_client").text
    for label in (
        "Client Name",
        "Client URI",
        "Allowed Scope",
        "Redirect URIs",
        "Allowed Grant Types",
        "Allowed Response Types",
        "Token Endpoint Auth Method",
    ):
        assert f">{label}</label>" in page


def test_logging_out_ends_the_session(browse):
    browser = browse("alice")
    session = browser.cookies["agentflow-demo-oauth"]
    browser.post("/logout", data={"a": "b"})
    browser.cookies.set("agentflow-demo-oauth", session)
    assert 'name="username"' in browser.get("/").text
