"""One user has one name, however it is written, and no two names look alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_server.models import User, normalise_username
from agentflow_server.models.users import MAX_USERNAME, is_user_id
from agentflow_server.testing.store_users import START
from agentflow_server.testing.store_users import make_user as make_stored_user
from agentflow_server.users.making import (
    MAX_CLAIM_BYTES,
    MAX_WORDS,
    RESERVED_CLAIMS,
    check_claims,
    check_words,
    make_user,
)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("alice", "alice"),
        ("ALICE", "alice"),
        ("Ａｌｉｃｅ", "alice"),
        ("\u212aai", "kai"),  # the sign for kelvin
        ("ﬁona", "fiona"),
        ("Alice.B-c_d+x@Example.COM", "alice.b-c_d+x@example.com"),
        ("7", "7"),
        ("x" * MAX_USERNAME, "x" * MAX_USERNAME),
    ],
)
def test_ways_to_write_a_name_are_one_name(written: str, name: str) -> None:
    assert normalise_username(written) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "alice ",
        " alice",
        "al ice",
        "alice\n",
        "alice\x00",
        "alice\u200b",
        "alice\u202e",
        "аlice",  # a Cyrillic letter
        "αlice",
        "alıce",
        "İlker",
        "élodie",
        "e\u0301lodie",
        "-alice",
        "alice-",
        ".",
        "@",
        "alice;drop",
        "../alice",
        "alice%00",
        "alice\ud800",
        "x" * (MAX_USERNAME + 1),
        "\ufdfa" * MAX_USERNAME,  # eighteen characters each
        "ﬃ" * MAX_USERNAME,  # three
        "01a20297-cc6d-73f4-bbba-8e187d6ad659",
        "01A20297-CC6D-73F4-BBBA-8E187D6AD659",
    ],
)
def test_what_may_be_taken_for_another_name_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="a username") as caught:
        normalise_username(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=MAX_USERNAME))
def test_a_name_that_was_normalised_stays_as_it_is(text: str) -> None:
    try:
        name = normalise_username(text)
    except ValueError:
        return
    assert normalise_username(name) == name
    assert name.isascii()
    assert not is_user_id(name)


def test_a_user_can_only_be_made_with_a_normalised_name() -> None:
    assert make_stored_user("ALICE").username == "alice"
    with pytest.raises(ValueError, match="a username"):
        make_stored_user("al ice")


# What operators say about a user


def test_a_new_user_has_an_id_that_is_no_username() -> None:
    user = make_user(
        "Alice",
        roles=["b", "a", "b"],
        scopes=["threads:read"],
        claims={"department": "sales"},
        created_at=START,
        has_password=True,
    )
    assert is_user_id(user.user_id)
    assert user == User(
        user_id=user.user_id,
        username="alice",
        roles=["a", "b"],
        scopes=["threads:read"],
        claims={"department": "sales"},
        created_at=START,
        password_changed_at=START,
    )


def test_a_user_without_a_password_never_changed_it() -> None:
    user = make_user("alice", created_at=START, has_password=False)
    assert user.password_changed_at is None
    assert user.user_id != make_user("alice", created_at=START, has_password=False).user_id


@pytest.mark.parametrize("word", ["", "a b", 'a"', "a\\", "é", "a\n", "x" * 129, "\x7f"])
@pytest.mark.parametrize("kind", ["role", "scope"])
def test_roles_and_scopes_are_words(word: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"a {kind} is 1 to 128 characters"):
        check_words(["fine", word], kind=kind)


def test_roles_and_scopes_are_few() -> None:
    words = [f"w{n}" for n in range(MAX_WORDS + 1)]
    assert len(check_words(words[:-1], kind="role")) == MAX_WORDS
    with pytest.raises(ValueError, match="at most 64 roles"):
        check_words(words, kind="role")


@pytest.mark.parametrize("name", ["sub", "exp", "iss", "user_id", "scope", "roles", "typ", "cnf"])
def test_a_claim_never_says_what_a_token_says_of_itself(name: str) -> None:
    assert name in RESERVED_CLAIMS
    with pytest.raises(ValueError, match=f"the claim '{name}' has a meaning of its own"):
        check_claims({"department": "sales", name: 1})


@pytest.mark.parametrize("name", ["", "a b", "a\n", "-a", "é", "x" * 129])
def test_the_name_of_a_claim_is_plain(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a claim"):
        check_claims({name: 1})


def test_claims_are_small_enough_for_a_token() -> None:
    fits = {"a": "x" * (MAX_CLAIM_BYTES - 8)}
    assert check_claims(fits) == fits
    with pytest.raises(ValueError, match="at most 4096 bytes"):
        check_claims({"a": "x" * MAX_CLAIM_BYTES})
