"""Which passwords are allowed: length counts, kinds of characters do not, guesses are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_server.errors import InvalidRequest
from agentflow_server.users.policy import MAX_BYTES, PasswordPolicy, encode_password

GOOD = "tea kettle sings at noon"


def refusal(password: str, *, username: str = "alice", min_length: int = 15) -> str | None:
    try:
        PasswordPolicy(min_length).check(password, username=username)
    except InvalidRequest as exc:
        return str(exc)
    return None


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "fifteen letters",
        "!@#$%^&*()_+{}|:<>?",
        "пароль длиннее пятнадцати",
        "お茶を飲みながら本を読むのが好き",
        "  spaces at both ends  ",
        "tab\tand\x07bell are typed, too",
        "x7" * 7 + "yq92kfm",
        "ab" * 32 + "c" * 448 + "d" * 512,
    ],
)
def test_r63_any_long_password_is_allowed_whatever_it_is_made_of(password: str) -> None:
    assert refusal(password) is None


def test_r63_fourteen_characters_are_too_few_and_fifteen_are_enough() -> None:
    assert refusal("tea kettle sin") == "The password has fewer than 15 characters"
    assert refusal("tea kettle sing") is None
    # Characters count, not bytes.
    assert refusal("чай и кипяток!") == "The password has fewer than 15 characters"


def test_r63_the_shortest_length_may_be_eight_and_not_less() -> None:
    assert refusal("k3ttl3 s", min_length=8) is None
    assert refusal("k3ttl3 ", min_length=8) == "The password has fewer than 8 characters"
    for length in (7, 0, -1, MAX_BYTES + 1):
        with pytest.raises(ValueError, match="min_length is between 8 and 1024"):
            PasswordPolicy(length)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "is empty"),
        ("x" * (MAX_BYTES + 1), "has more than 1024 bytes"),
        ("é" * (MAX_BYTES // 2 + 1), "has more than 1024 bytes"),
        (GOOD + "\x00", "contains NUL"),
        ("\x00" + GOOD, "contains NUL"),
        (GOOD + "\ud800", "is not text in UTF-8"),
    ],
)
def test_r63_nothing_is_cut_off_what_cannot_be_kept_is_refused(password: str, reason: str) -> None:
    assert refusal(password) == f"The password {reason}"


@given(
    st.text(
        min_size=1, max_size=200, alphabet=st.characters(codec="utf-8", exclude_characters="\0")
    )
)
def test_r63_a_password_is_exactly_the_bytes_that_were_typed(password: str) -> None:
    assert encode_password(password) == password.encode()


@pytest.mark.parametrize(
    "password",
    [
        "aaaaaaaaaaaaaaa",
        "               ",
        "abababababababab",
        "abcdabcdabcdabcda",
        "passwordpassword",
        "PasswordPassword",
        "passwordpasswordpass",
        "correct horse battery staple",
        "CorrectHorseBatteryStaple",
        "This is my password",
        "qwertyuiopasdfgh",
        "hgfdsapoiuytrewq",
        "123456789012345",
        "0987654321098765",
        "1qaz2wsx3edc4rfv",
        "abcdefghijklmnop",
        "iloveyouiloveyou",
    ],
)
def test_r63_what_is_guessed_first_is_refused(password: str) -> None:
    assert refusal(password) == "The password is one of those that are guessed first"


@pytest.mark.parametrize(
    "password",
    ["password123", "Password123!", "secure_password", "changeme", "12345678", "agentflow"],
)
def test_r63_short_ones_from_tutorials_are_refused_where_eight_are_enough(password: str) -> None:
    assert refusal(password, min_length=8) == "The password is one of those that are guessed first"


@pytest.mark.parametrize(
    ("password", "username"),
    [
        ("alice@example.com", "alice@example.com"),
        ("Alice@Example.com", "alice@example.com"),
        ("moc.elpmaxe@ecila", "alice@example.com"),
        ("alice@example.com2026!", "alice@example.com"),
        ("robertarobert-12", "robert"),
        ("1robertotreborx", "robert"),
    ],
)
def test_r63_the_username_is_no_password(password: str, username: str) -> None:
    assert refusal(password, username=username) == "The password is made of the username"


def test_r63_a_word_that_happens_to_be_a_name_is_no_reason() -> None:
    assert refusal("a robin sings at noon", username="robin") is None
    assert refusal(GOOD, username="t") is None


def test_r63_no_refusal_repeats_the_password() -> None:
    for password in ("tea kettle", "passwordpassword", "alice@example.com", GOOD + "\x00"):
        told = refusal(password, username="alice@example.com")
        assert told is not None
        assert password not in told
