"""auth/mfa.py: a JWT and a TOTP code in one credential."""

import json
import threading
import time

import jwt
import pyotp
import pytest
from fastapi import HTTPException

ALICE, BOB = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", "KRSXG5CTMVRXEZLUKRSXG5CTMVRXEZLU"


@pytest.fixture
def module(load, clock):
    module = load("mfa")
    module.time = clock
    return module


@pytest.fixture
def make(module, jwt_secret, tmp_path):
    file = tmp_path / "mfa.json"
    file.write_text(json.dumps({"alice": ALICE, "bob": BOB}))
    return lambda **options: module.MFAAuth(secrets_file=str(file), **options)


@pytest.fixture
def backend(make):
    return make()


@pytest.fixture
def token(jwt_secret):
    def sign(user_id="alice", *, key=jwt_secret, **claims):
        payload = {"user_id": user_id, "exp": time.time() + 3600, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, key, algorithm="HS256")

    return sign


@pytest.fixture
def code(clock):
    return lambda secret=ALICE, *, shift=0: pyotp.TOTP(secret).at(
        int(clock.now), counter_offset=shift
    )


def wrong(code: str) -> str:
    """Wrong now and in the neighbouring steps."""
    return f"{(int(code) + 1) % 1_000_000:06}"


INVALID = (401, "Invalid MFA code")


def test_a_token_and_its_code_get_in(backend, token, code, ask):
    assert ask(backend, f"{token(username='Alice')}:{code()}") == {
        "user_id": "alice",
        "username": "Alice",
        "mfa_verified": True,
    }


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_clock_may_be_half_a_minute_off(backend, token, code, ask, shift):
    assert ask(backend, f"{token()}:{code(shift=shift)}") is not None


@pytest.mark.parametrize("shift", [-3, -2, 2, 3])
def test_an_older_or_later_code_is_refused(backend, token, code, refusal, shift):
    assert refusal(backend, f"{token()}:{code(shift=shift)}") == INVALID


@pytest.mark.parametrize(
    "shape", ["{jwt}", "{jwt}:", ":{code}", "{jwt}:{code}:{code}", "{jwt}::{code}", "", ":"]
)
def test_another_shape_is_explained(backend, token, code, refusal, shape):
    credential = shape.format(jwt=token(), code=code())
    text = "Invalid token format. Expected: jwt:mfa_code"
    assert refusal(backend, credential) == (401, text)


def test_the_token_is_checked_before_the_code(backend, token, code, refusal, ask):
    forged = token(key="another-key-of-thirty-two-bytes-0123456789")
    late = token(exp=time.time() - 1)
    assert refusal(backend, f"{forged}:{code()}") == (401, "Invalid token")
    assert refusal(backend, f"{late}:{code()}") == (401, "Token has expired")
    assert refusal(backend, f"{token(exp=None)}:{code()}") == (401, "Invalid token")
    assert refusal(backend, f"{token(7)}:{code()}") == (401, "Invalid token")
    assert refusal(backend, f"x.y.z:{code()}") == (401, "Invalid token")
    assert ask(backend, f"{token()}:{code()}") is not None


def test_a_secret_inside_the_token_is_ignored(backend, token, code, refusal):
    own = token("mallory", mfa_secret=BOB)
    assert refusal(backend, f"{own}:{code(BOB)}") == INVALID
    assert refusal(backend, f"{token('alice', mfa_secret=BOB)}:{code(BOB)}") == INVALID


@pytest.mark.parametrize("code_of", ["bob", "fullwidth", "spaces", "words"])
def test_only_the_users_own_six_digits_are_a_code(backend, token, code, refusal, code_of):
    codes = {
        "bob": code(BOB),
        "fullwidth": code().translate({48 + n: 0xFF10 + n for n in range(10)}),
        "spaces": " " + code(),
        "words": "oh-one",
    }
    assert refusal(backend, f"{token()}:{codes[code_of]}") == INVALID


def test_a_pair_works_for_fifteen_minutes_and_not_longer(backend, token, code, clock, ask, refusal):
    pair = f"{token()}:{code()}"
    ask(backend, pair)
    clock.now += 899
    assert ask(backend, pair) is not None
    clock.now += 1
    assert refusal(backend, pair) == INVALID


def test_using_a_pair_does_not_prolong_it(backend, token, code, clock, ask, refusal):
    pair = f"{token()}:{code()}"
    for _ in range(15):
        ask(backend, pair)
        clock.now += 60
    assert refusal(backend, pair) == INVALID


def test_an_ended_pair_is_refused_even_while_its_code_would_be_valid(
    make, token, code, clock, ask, refusal
):
    backend = make(pair_seconds=5)
    pair = f"{token()}:{code(shift=1)}"
    ask(backend, pair)
    clock.now += 5
    assert refusal(backend, pair) == INVALID


def test_an_ended_pair_repeated_does_not_lock_the_user_out(
    backend, token, code, clock, ask, refusal
):
    pair = f"{token()}:{code()}"
    ask(backend, pair)
    clock.now += 900
    for _ in range(20):
        assert refusal(backend, pair) == INVALID
    assert ask(backend, f"{token()}:{code()}") is not None


def test_a_code_belongs_to_the_first_token_that_presents_it(backend, token, code, ask, refusal):
    first, second = token(jti="1"), token(jti="2")
    ask(backend, f"{first}:{code()}")
    assert refusal(backend, f"{second}:{code()}") == INVALID
    assert ask(backend, f"{first}:{code()}") is not None


def test_a_code_older_than_the_last_one_used_is_refused(backend, token, code, ask, refusal):
    ask(backend, f"{token(jti='1')}:{code(shift=1)}")
    assert refusal(backend, f"{token(jti='2')}:{code()}") == INVALID


def test_two_tokens_with_two_codes_both_work(backend, token, code, clock, ask):
    first = f"{token(jti='1')}:{code()}"
    ask(backend, first)
    clock.now += 30
    assert ask(backend, f"{token(jti='2')}:{code()}") is not None
    assert ask(backend, first) is not None


def test_five_wrong_codes_stop_a_users_new_codes(backend, token, code, clock, refusal, ask):
    pair = f"{token(jti='1')}:{code()}"
    ask(backend, pair)
    clock.now += 90
    for _ in range(5):
        assert refusal(backend, f"{token()}:{wrong(code())}") == INVALID
    with pytest.raises(HTTPException, match="Too many wrong MFA codes") as caught:
        ask(backend, f"{token()}:{code()}")
    assert caught.value.status_code == 429
    assert caught.value.headers == {"Retry-After": "301"}

    assert ask(backend, pair) is not None, "what was accepted stays accepted"
    assert ask(backend, f"{token('bob')}:{code(BOB)}") is not None, "others are not concerned"

    clock.now += 300
    assert ask(backend, f"{token()}:{code()}") is not None


def test_parallel_guesses_do_not_slip_past_the_limit(backend, token, code, ask):
    answers: list[int] = []
    guess = f"{token()}:{wrong(code())}"
    barrier = threading.Barrier(20)

    def try_once() -> None:
        barrier.wait()
        try:
            ask(backend, guess)
        except HTTPException as exc:
            answers.append(exc.status_code)

    threads = [threading.Thread(target=try_once) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [401] * 5 + [429] * 15


def test_of_parallel_tokens_with_one_code_a_single_one_gets_in(backend, token, code, ask):
    answers: list[int] = []
    barrier = threading.Barrier(4)

    def try_once(number: int) -> None:
        credential = f"{token(jti=str(number))}:{code()}"
        barrier.wait()
        try:
            ask(backend, credential)
            answers.append(200)
        except HTTPException as exc:
            answers.append(exc.status_code)

    threads = [threading.Thread(target=try_once, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 401, 401, 401]


def test_memory_is_bounded(module, make, token, code, clock, ask, refusal):
    module.MAX_REMEMBERED = 3
    backend = make()
    for _ in range(10):
        ask(backend, f"{token()}:{code()}")
        clock.now += 30
    for number in range(10):
        refusal(backend, f"{token(f'user{number}')}:000000")
    assert [len(memory) for memory in (backend._pairs, backend._used, backend._wrong)] == [3, 1, 3]


def test_a_database_of_secrets_is_one_method(module, jwt_secret, monkeypatch, token, code, ask):
    monkeypatch.setenv("MFA_SECRETS", json.dumps({"bob": BOB}))

    class Mine(module.MFAAuth):
        def find_secret(self, user_id):
            return ALICE

    assert ask(Mine(), f"{token('carol')}:{code()}")["user_id"] == "carol"


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ("", "MFA_SECRETS: expected JSON"),
        ("{}", "MFA_SECRETS: expected JSON"),
        ("[]", "MFA_SECRETS: expected JSON"),
        ('{"alice": 5}', "MFA_SECRETS: expected JSON"),
        ('{"alice": "not base32!"}', "MFA_SECRETS: expected JSON"),
        ('{"alice": "JBSWY3DPEHPK3PXP"}', "MFA_SECRETS: expected JSON.*at least 128 bits"),
    ],
)
def test_unusable_secrets_stop_the_server(module, jwt_secret, monkeypatch, secrets, message):
    monkeypatch.setenv("MFA_SECRETS", secrets)
    with pytest.raises(ValueError, match=message) as caught:
        module.MFAAuth()
    assert "JBSW" not in str(caught.value)


def test_other_mistakes_stop_the_server(module, make, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        module.MFAAuth(secrets_file=str(tmp_path / "nothing.json"))
    for seconds in (0, 901):
        with pytest.raises(ValueError, match="pair_seconds"):
            make(pair_seconds=seconds)
    monkeypatch.setenv("JWT_SECRET_KEY", "too short")
    with pytest.raises(ValueError, match="JWT_SECRET_KEY: 32 random bytes"):
        make()
