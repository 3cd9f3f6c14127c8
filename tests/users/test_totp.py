"""Codes of a second factor, as RFC 6238 and authenticator apps have them."""

import base64

import pyotp
import pytest

from agentflow_server.users.totp import find_step, make_code, make_totp_secret, totp_uri

# RFC 6238, appendix B
SEED = b"12345678901234567890"
VECTORS = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
    (20000000000, "353130"),
]


@pytest.mark.parametrize(("moment", "code"), VECTORS)
def test_codes_are_those_of_the_specification(moment: int, code: str) -> None:
    assert make_code(SEED, moment // 30) == code
    assert find_step(SEED, code, moment) == moment // 30


def test_an_authenticator_app_reads_the_address_and_makes_the_same_codes() -> None:
    secret = make_totp_secret()
    uri = totp_uri(secret, username="alice@example.com", issuer="Agents & more")
    app = pyotp.parse_uri(uri)
    assert isinstance(app, pyotp.TOTP)
    assert (app.name, app.issuer) == ("alice@example.com", "Agents & more")
    assert base64.b32decode(app.secret) == secret
    assert find_step(secret, app.at(1_700_000_000), 1_700_000_000) == 1_700_000_000 // 30


def test_a_code_is_good_half_a_minute_early_and_late_and_no_longer() -> None:
    now = 1_700_000_000
    steps = [find_step(SEED, make_code(SEED, now // 30 + drift), now) for drift in range(-2, 3)]
    assert steps == [None, now // 30 - 1, now // 30, now // 30 + 1, None]


@pytest.mark.parametrize(
    "typed", ["", "12345", "1234567", "abcdef", "٢٨٧٠٨٢", "\ud800", "28 7 083"]
)
def test_what_is_no_code_is_wrong(typed: str) -> None:
    assert find_step(SEED, typed, 59) is None


def test_spaces_between_the_digits_do_not_matter() -> None:
    assert find_step(SEED, "287 082", 59) == 1
