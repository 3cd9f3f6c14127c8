"""R21, R22, R55 and the mapping of claims: who a token speaks for, and with which rights."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.auth.claim_rules import ClaimRules, judge_claims
from agentflow_server.auth.claims import read_principal, read_user_id
from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.errors import NotAuthenticated

NOW = 1_800_000_000
Open = Callable[..., Any]


def reason(desk: Any, **claims: Any) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        desk.auth.verify(desk.write(desk.claims(**claims)))
    return caught.value.reason


def caller(desk: Any, **claims: Any) -> Any:
    return desk.auth.verify(desk.write(desk.claims(**claims)))


def test_the_principal_knows_its_token(desk: Any) -> None:
    for _ in range(2):  # verified, then remembered
        principal = caller(desk, iss="us", jti="t1", iat=NOW - 5)
        assert principal.method == "jwt"
        assert (principal.issuer, principal.token_id) == ("us", "t1")
        assert (principal.issued_at, principal.expires_at) == (NOW - 5, NOW + 3600)
    principal = caller(desk)
    assert (principal.issuer, principal.token_id, principal.issued_at) == (None, None, None)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": " a  b "}, {"a", "b"}),
        ({"scope": ""}, set()),
        ({"scope": "a\tb c"}, {"a\tb", "c"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b c"]}, {"a", "b c"}),
        ({"scopes": ["a"], "permissions": ["b"]}, {"a", "b"}),
        ({"scope": "openid", "permissions": ["threads:read"]}, {"openid", "threads:read"}),
        ({"scope": ["a", 1, None, ["b"], ""]}, {"a"}),
        ({"scope": {"a": True}}, set()),
        ({"scope": None}, set()),
        ({"scope": 7}, set()),
    ],
)
def test_scopes_are_words_or_lists(desk: Any, claims: Any, scopes: set[str]) -> None:
    assert caller(desk, **claims).scopes == scopes


def test_scopes_and_roles_are_read_where_the_operator_says(open_desk: Open) -> None:
    desk = open_desk(
        scope_claims=("rights.api",),
        role_claims=("realm_access.roles", "https://shop.example/roles", "group"),
    )
    principal = caller(
        desk,
        scope="ignored",
        rights={"api": "a b"},
        realm_access={"roles": ["admin"]},
        roles=["ignored"],
        **{"https://shop.example/roles": ["editor"], "group": "sales people"},
    )
    assert principal.scopes == {"a", "b"}
    assert principal.roles == {"admin", "editor", "sales people"}
    nothing = caller(desk, realm_access=["roles"], rights={"api": {"a": 1}})
    assert (nothing.scopes, nothing.roles) == (frozenset(), frozenset())
    assert caller(desk, realm_access={"roles": {"admin": True}}).roles == frozenset()


def test_a_claim_with_dots_in_its_name_comes_before_a_path(open_desk: Open) -> None:
    desk = open_desk(role_claims=("a.b",))
    assert caller(desk, **{"a.b": ["flat"], "a": {"b": ["deep"]}}).roles == {"flat"}
    assert caller(desk, a={"b": ["deep"]}).roles == {"deep"}


def test_r22_the_user_id_may_be_at_the_end_of_a_path(open_desk: Open) -> None:
    desk = open_desk(user_id_claim="profile.login")
    principal = caller(desk, profile={"login": "bob"})
    assert principal.id == principal.claims["user_id"] == "bob"
    assert reason(desk, profile="bob") == "bad_user_id"


@pytest.mark.parametrize(
    ("required", "good", "bad"),
    [
        ({"tenant": "a"}, [{"tenant": "a"}, {"tenant": ["b", "a"]}], [{}, {"tenant": "b"}]),
        ({"tenant": ["a", "b"]}, [{"tenant": "b"}, {"tenant": ["b"]}], [{"tenant": "c"}]),
        ({"tenant": None}, [{"tenant": "any"}, {"tenant": 0}], [{}, {"tenant": None}]),
        (
            {"email_verified": True},
            [{"email_verified": True}],
            [{"email_verified": 1}, {"email_verified": "true"}, {"email_verified": False}, {}],
        ),
        ({"level": 1}, [{"level": 1}], [{"level": True}, {"level": "1"}]),
        ({"org.id": "x"}, [{"org": {"id": "x"}}, {"org.id": "x"}], [{"org": "x"}, {"org": {}}]),
        ({"a": 1, "b": 2}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}]),
        ({"tenant": []}, [], [{"tenant": []}, {"tenant": "a"}]),
    ],
)
def test_required_claims_have_their_values(
    open_desk: Open, required: Any, good: list[Any], bad: list[Any]
) -> None:
    desk = open_desk(required=required)
    for claims in good:
        assert caller(desk, **claims).id == "alice"
    for claims in bad:
        assert reason(desk, **claims) == "required_claim"


def test_r21_a_token_may_not_live_longer_than_allowed(open_desk: Open) -> None:
    desk = open_desk(max_lifetime=600.0)
    assert caller(desk, iat=NOW, exp=NOW + 600).id == "alice"
    assert reason(desk, iat=NOW, exp=NOW + 601) == "lifetime_too_long"
    assert reason(desk, exp=NOW + 60) == "iat_missing"


def test_r21_a_token_may_not_be_older_than_allowed(open_desk: Open) -> None:
    desk = open_desk(max_age=600.0)
    assert reason(desk, exp=NOW + 60) == "iat_missing"
    assert reason(desk, iat=NOW - 600) == "too_old"
    assert reason(desk, iat=NOW - 600, exp=NOW) == "expired"
    principal = caller(desk, iat=NOW - 590)
    assert principal.expires_at == NOW + 10
    desk.clock.now = NOW + 10
    assert reason(desk, iat=NOW - 590) == "too_old"
    with pytest.raises(NotAuthenticated, match=r"^Token has expired$"):
        caller(desk, iat=NOW - 590)


def test_where_no_end_is_asked_for_there_may_be_none(open_desk: Open) -> None:
    desk = open_desk(expiry_required=False)
    assert caller(desk, exp=...).expires_at is None
    assert caller(desk).expires_at == NOW + 3600
    assert reason(desk, exp=NOW) == "expired"


def test_a_verdict_has_no_claims_of_its_own(desk: Any) -> None:
    assert judge_claims(desk.claims(), ClaimRules(), NOW).caller.claims == {}


def recognised(auth: JwtAuth, text: str) -> bool:
    return auth.recognises(HTTPAuthorizationCredentials(scheme="Bearer", credentials=text))


def test_an_issuers_tokens_are_recognised_by_what_they_say(desk: Any, open_desk: Open) -> None:
    ours = open_desk(issuer="us").auth
    assert recognised(ours, desk.write(desk.claims(iss="us")))
    for other in ("them", "us/", ["us"], None, ...):
        assert not recognised(ours, desk.write(desk.claims(iss=other)))
    rest = JwtAuth(desk.auth.source, foreign_issuers=frozenset({"us"}), clock=desk.clock)
    assert not recognised(rest, desk.write(desk.claims(iss="us")))
    for other in ("them", ["us"], {}, None, ...):
        assert recognised(rest, desk.write(desk.claims(iss=other)))
    assert recognised(desk.auth, desk.write(desk.claims(iss="us")))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "the user id is a boolean"),
        (1.5, "the user id is neither a string nor an integer nor a UUID"),
        (" ", "the user id is blank"),
        (" alice", "the user id begins or ends with white space"),
        ("alice ", "the user id begins or ends with white space"),
        ("a" * 257, "the user id has more than 256 characters"),
        ("a\n", "the user id contains unprintable characters"),
    ],
)
def test_r22_what_is_wrong_with_a_user_id_is_said_without_it(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        read_user_id(value)


def test_the_claims_of_a_backend_may_hold_scopes_and_roles() -> None:
    principal = read_principal({"user_id": 7, "scope": "a b", "roles": ["editor"]})
    assert (principal.id, principal.method) == ("7", "custom")
    assert (principal.scopes, principal.roles) == ({"a", "b"}, {"editor"})


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", ...])
def test_r14_a_configured_type_is_accepted_too(desk: Any, typ: Any) -> None:
    for configured in ("at+jwt", "application/at+jwt", "AT+jwt"):
        auth = JwtAuth(desk.auth.source, token_type=configured, clock=desk.clock)
        assert auth.verify(desk.write(header={"typ": typ})).id == "alice"
        for other in ("it+jwt", "", "logout+jwt"):
            with pytest.raises(NotAuthenticated):
                auth.verify(desk.write(header={"typ": other}))


NOT_ACCESS = [
    {"typ": "ID"},
    {"typ": "Refresh"},
    {"typ": "Offline"},
    {"typ": "Logout"},
    {"typ": "logout+jwt"},
    {"token_use": "id"},
    {"token_use": "refresh"},
    {"token_type": "refresh"},
    {"token_type": "Refresh_Token"},
    {"type": "refresh"},
    {"at_hash": "x"},
    {"c_hash": "x", "scope": "a"},
    {"s_hash": None},
    {"nonce": "x"},
    {"nonce": "x", "aud_": "client", "auth_time": 1},
    {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
]


@pytest.mark.parametrize("claims", NOT_ACCESS)
def test_r55_what_is_no_access_token_is_refused(desk: Any, claims: dict[str, Any]) -> None:
    assert reason(desk, **claims) == "not_an_access_token"


@pytest.mark.parametrize("typ", ["Refresh", "ID", "Logout", "logout+jwt", "id+jwt", "rt+jwt"])
def test_r55_nor_is_one_whose_header_says_so(desk: Any, typ: str) -> None:
    with pytest.raises(NotAuthenticated) as caught:
        desk.auth.verify(desk.write(header={"typ": typ}))
    assert caught.value.reason == "typ_not_allowed"


@pytest.mark.parametrize(
    "claims",
    [
        {"typ": "Bearer"},
        {"typ": 1},
        {"token_use": "access"},
        {"token_type": "Bearer"},
        {"token_type": "access"},
        {"type": "user"},
        {"nonce": "x", "scope": "openid"},
        {"nonce": "x", "scp": "api"},
        {"nonce": "x", "scopes": ["api"]},
        {"events": ["concert"]},
        {"auth_time": NOW - 60, "azp": "web"},
    ],
)
def test_r55_access_tokens_of_known_providers_are_accepted(
    desk: Any, claims: dict[str, Any]
) -> None:
    assert caller(desk, **claims).id == "alice"


def test_r23_iss_is_a_string_even_when_nobody_compares_it(desk: Any) -> None:
    for value in (None, 1, True, ["us"], {}):
        assert reason(desk, iss=value) == "bad_iss"


def test_two_issuers_equal_subjects_are_two_people(open_desk: Open) -> None:
    desk = open_desk(issuer="https://a.example", namespace="https://a.example|")
    principal = caller(desk, iss="https://a.example")
    assert principal.id == "https://a.example|alice"
    assert principal.claims["user_id"] == "https://a.example|alice"


def test_nobody_can_name_himself_like_a_user_of_another_issuer(open_desk: Open) -> None:
    desk = open_desk(reserved=("https://a.example|", "https://b.example|"))
    assert reason(desk, user_id="https://b.example|alice") == "foreign_user_id"
    assert caller(desk, user_id="https://c.example|alice").id == "https://c.example|alice"
    prefixed = open_desk(namespace="https://c.example|", reserved=("https://a.example|",))
    assert caller(prefixed, user_id="https://a.example|al").id == (
        "https://c.example|https://a.example|al"
    )
    likewise = open_desk(namespace="acme|", reserved=("acme|", "acme|eu|"))
    assert reason(likewise, user_id="eu|bob") == "foreign_user_id"
    assert caller(likewise, user_id="bob").id == "acme|bob"
