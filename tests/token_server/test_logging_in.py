"""Passwords, second factors, and how often somebody may try."""

import asyncio
import base64

import pyotp
import pytest

from agentflow_server.models import UserChange, UserSecrets
from agentflow_server.testing.store_users import make_user
from agentflow_server.token_server import ClientLogin, LoginRefused, OAuthError
from agentflow_server.token_server.logins import PER_ACCOUNT, PER_SECOND_FACTOR

GOOD = "tea kettle sings at noon"
WRONG = "tea kettle sings at noom"


def seen(error: OAuthError):
    return error.code, error.description, error.status, error.retry_after


async def test_r62_the_password_grant_is_off_unless_it_is_asked_for(scene, call_from):
    server = scene.make_server(password_grant=False)
    await server.open()
    caller = call_from(server)
    error = await caller.refusal(caller.log_in())
    assert error.code == "unsupported_grant_type"
    await server.close()


async def test_r62_a_client_uses_no_grant_that_it_was_not_given(caller):
    assert (await caller.refusal(caller.log_in(client="web"))).code == "unauthorized_client"
    asked = caller.ask("client_credentials", "own")
    assert (await caller.refusal(asked)).code == "unauthorized_client"


async def test_r64_whoever_cannot_log_in_hears_the_same(scene, caller):
    await scene.add_user("bob", disabled=True)
    await scene.add_user("carol", totp_secret=b"1" * 20)
    asked = [
        caller.log_in("nobody"),
        caller.log_in("no body!"),
        caller.log_in("alice", WRONG),
        caller.log_in("bob"),
        caller.log_in("carol"),
        caller.log_in("carol", totp="000000"),
        caller.log_in("carol", totp="not a code"),
    ]
    errors = [await caller.refusal(one) for one in asked]
    assert {seen(error) for error in errors} == {("invalid_grant", LoginRefused.TEXT, 400, None)}
    reasons = [error.reason for error in errors]
    assert reasons == ["bad_credentials"] * 4 + ["totp_missing", "bad_totp", "bad_totp"]


async def test_r64_passwords_count_to_the_byte(scene, caller):
    for password in (f"{WRONG} ", f" {WRONG}", "TEA KETTLE SINGS AT NOON"):
        assert (await caller.refusal(caller.log_in(password=password))).code == "invalid_grant"


async def test_a_second_factor_is_asked_for_after_the_password_and_good_once(
    scene, server, caller, totp_secret
):
    await scene.add_user("carol", totp_secret=totp_secret)
    totp = pyotp.TOTP(base64.b32encode(totp_secret).decode())
    code = totp.at(scene.clock.now)
    wrong = await caller.refusal(caller.log_in("carol", WRONG, totp=code))
    assert wrong.reason == "bad_credentials"
    await caller.log_in("carol", totp=code)
    error = await caller.refusal(caller.log_in("carol", totp=code))
    assert (error.code, error.reason) == ("invalid_grant", "totp_replayed")
    scene.clock.now += 30
    await caller.log_in("carol", totp=totp.at(scene.clock.now))


async def test_r65_codes_of_a_second_factor_are_guessed_only_so_often_in_a_day(
    scene, server, caller, totp_secret, caplog
):
    carol = await scene.add_user("carol", totp_secret=totp_secret)
    await scene.add_user("dave", totp_secret=totp_secret)
    code = pyotp.TOTP(base64.b32encode(totp_secret).decode()).at(scene.clock.now)
    for _ in range(PER_SECOND_FACTOR.amount):
        await scene.limiter.hit(f"login-totp {carol.user_id}", PER_SECOND_FACTOR)
    wrong = await caller.refusal(caller.log_in("carol", WRONG, totp=code))
    error = await caller.refusal(caller.log_in("carol", totp=code))
    assert seen(error) == seen(wrong)
    assert error.reason == "rate_limited"
    assert carol.user_id in caplog.text
    await caller.log_in("dave", totp=code)


async def test_r65_only_wrong_codes_count_as_guesses(scene, caller, totp_secret):
    carol = await scene.add_user("carol", totp_secret=totp_secret)

    async def left():
        key = f"login-totp {carol.user_id}"
        return (await scene.limiter.peek(key, PER_SECOND_FACTOR)).remaining

    await caller.refusal(caller.log_in("carol"))
    await caller.refusal(caller.log_in("carol", WRONG, totp="000000"))
    assert await left() == PER_SECOND_FACTOR.amount
    assert (await caller.refusal(caller.log_in("carol", totp="letters"))).reason == "bad_totp"
    assert await left() == PER_SECOND_FACTOR.amount - 1


async def test_a_user_without_a_second_factor_may_send_anything_as_one(caller):
    assert (await caller.log_in(totp="123456")).user_id


async def test_r65_an_account_is_tried_only_so_often_and_others_are_not_stopped(scene, caller):
    token = (await caller.log_in()).access_token
    await scene.add_user("bob")
    for _ in range(PER_ACCOUNT.amount):
        assert (await caller.refusal(caller.log_in("ALICE", WRONG))).status == 400
    error = await caller.refusal(caller.log_in("alice"))
    assert error.status == 429
    assert error.retry_after >= 1
    await scene.judge(token)
    await caller.log_in("bob")


async def test_r65_an_unknown_account_is_limited_like_any_other(caller):
    for _ in range(PER_ACCOUNT.amount):
        assert (await caller.refusal(caller.log_in("nobody"))).status == 400
    assert (await caller.refusal(caller.log_in("nobody"))).status == 429


async def test_r65_many_attempts_at_once_are_no_more_than_one_after_the_other(caller):
    asked = [caller.refusal(caller.log_in("alice", WRONG)) for _ in range(30)]
    errors = await asyncio.gather(*asked)
    assert sum(error.status == 400 for error in errors) == PER_ACCOUNT.amount


async def test_r65_an_address_is_heard_only_so_often(scene, server, caller):
    for number in range(20):
        await caller.refusal(caller.log_in(f"somebody{number}"))
    assert (await caller.refusal(caller.log_in("alice"))).status == 429
    form = {"grant_type": "password", "username": "alice", "password": GOOD}
    await server.grant(form, ClientLogin("own"), address="192.0.2.8")


async def test_r65_who_gets_it_right_is_never_stopped(caller):
    answers = [await caller.log_in() for _ in range(30)]
    assert len({answer.token_id for answer in answers}) == 30


async def test_when_too_many_passwords_are_hashed_one_is_asked_to_come_back(scene, caller):
    scene.passwords._places = 0
    error = await caller.refusal(caller.log_in())
    assert (error.status, error.retry_after, error.reason) == (429, 1, "busy")
    scene.passwords._places = 36
    await caller.log_in()


async def test_r63_a_user_without_a_password_cannot_log_in(scene, caller):
    await scene.store.add_users([(make_user("dave"), UserSecrets())])
    assert (await caller.refusal(caller.log_in("dave"))).code == "invalid_grant"


async def test_who_loses_his_password_while_he_logs_in_gets_nothing(scene, call_from):
    class Changing:
        """The store of a server, with a command that changes the password in between."""

        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def find_user_by_name(self, username):
            found = await self._store.find_user_by_name(username)
            change = UserChange(password_hash=await scene.passwords.hash("another one, and long"))
            await self._store.update_user(found[0].user_id, change)
            await self._store.revoke_user_grants(found[0].user_id)
            return found

    server = scene.make_server(Changing(scene.store))
    await server.open()
    caller = call_from(server)
    error = await caller.refusal(caller.log_in())
    assert (error.code, error.reason) == ("invalid_grant", "password_changed")
    request = server.check_authorization(caller.query())
    await scene.store.update_user(
        scene.alice.user_id, UserChange(password_hash=await scene.passwords.hash(WRONG))
    )
    with pytest.raises(LoginRefused) as caught:
        await server.log_in(request, "alice", WRONG, None, address="192.0.2.1")
    assert caught.value.reason == "password_changed"
    await server.close()


@pytest.mark.parametrize("missing", ["grant_type", "username", "password"])
async def test_r66_a_form_without_a_needed_field_is_an_invalid_request(server, caller, missing):
    form = {"grant_type": "password", "username": "alice", "password": WRONG}
    form[missing] = ""
    error = await caller.refusal(server.grant(form, None, address="192.0.2.1"))
    assert (error.code, error.description) == (
        "invalid_request",
        f"The parameter {missing} is missing",
    )


async def test_r66_an_unknown_grant_is_refused(caller):
    assert (await caller.refusal(caller.ask("implicit"))).code == "unsupported_grant_type"
