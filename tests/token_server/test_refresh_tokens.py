"""Sessions: refreshed, stolen, ended."""

import asyncio

import pytest

from agentflow_server.errors import NotAuthenticated
from agentflow_server.models import UserChange
from agentflow_server.token_server import ClientLogin


async def test_r67_a_refresh_token_is_good_once_and_brings_another(scene, caller):
    first = await caller.log_in()
    second = await caller.refresh(first.refresh_token)
    third = await caller.refresh(second.refresh_token)
    tokens = {answer.refresh_token for answer in (first, second, third)}
    assert len(tokens) == 3
    await scene.judge(third.access_token)


async def test_r67_a_token_that_comes_again_ends_the_session_for_everybody(scene, caller):
    first = await caller.log_in()
    second = await caller.refresh(first.refresh_token)
    scene.clock.now += 10
    error = await caller.refusal(caller.refresh(first.refresh_token))
    assert (error.code, error.reason) == ("invalid_grant", "refresh_token_reused")
    error = await caller.refusal(caller.refresh(second.refresh_token))
    assert error.code == "invalid_grant"
    with pytest.raises(NotAuthenticated):
        await scene.judge(second.access_token)


async def test_r67_a_client_that_asks_twice_at_the_same_time_keeps_its_session(scene, caller):
    first = await caller.log_in()
    answers = await asyncio.gather(
        *(caller.refresh(first.refresh_token) for _ in range(8)), return_exceptions=True
    )
    won = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(won) == 1
    assert {str(answer.code) for answer in answers if isinstance(answer, Exception)} == {
        "invalid_grant"
    }
    await caller.refresh(won[0].refresh_token)


async def test_r67_a_session_ends_however_often_it_is_refreshed(scene, caller):
    answer = await caller.log_in()
    for _ in range(2):
        scene.clock.now += 1_295_999
        answer = await caller.refresh(answer.refresh_token)
    scene.clock.now += 3
    error = await caller.refusal(caller.refresh(answer.refresh_token))
    assert error.reason == "refresh_token_expired"


async def test_r67_refresh_tokens_are_stored_as_hashes(tmp_path, caller):
    answer = await caller.log_in()
    await caller.refresh(answer.refresh_token)
    for file in tmp_path.glob("agentflow.db*"):
        assert answer.refresh_token.encode() not in file.read_bytes()


async def test_r67_neither_token_is_taken_for_the_other(scene, caller):
    answer = await caller.log_in()
    error = await caller.refusal(caller.refresh(answer.access_token))
    assert error.code == "invalid_grant"
    with pytest.raises(NotAuthenticated):
        await scene.judge(answer.refresh_token)


async def test_a_refresh_token_of_another_client_is_refused_and_stays_good(caller):
    answer = await caller.log_in()
    error = await caller.refusal(caller.refresh(answer.refresh_token, "web"))
    assert (error.code, error.reason) == ("invalid_grant", "foreign_refresh_token")
    await caller.refresh(answer.refresh_token)


@pytest.mark.parametrize("made_up", ["x", "afr_" + "A" * 43, "ä" * 20, "x" * 5000])
async def test_what_is_no_refresh_token_is_refused(caller, made_up):
    error = await caller.refusal(caller.refresh(made_up))
    assert (error.code, error.status) == ("invalid_grant", 400)


async def test_r68_a_disabled_user_gets_no_further_token(scene, caller):
    answer = await caller.log_in()
    await scene.store.update_user(scene.alice.user_id, UserChange(disabled=True))
    error = await caller.refusal(caller.refresh(answer.refresh_token))
    assert (error.code, error.reason) == ("invalid_grant", "no_such_user")
    with pytest.raises(NotAuthenticated):
        await scene.judge(answer.access_token)
    await scene.store.update_user(scene.alice.user_id, UserChange(disabled=False))
    assert (await caller.refusal(caller.refresh(answer.refresh_token))).code == "invalid_grant"


async def test_r68_a_removed_user_gets_no_further_token(scene, caller):
    answer = await caller.log_in()
    await scene.store.remove_user(scene.alice.user_id)
    error = await caller.refusal(caller.refresh(answer.refresh_token))
    assert error.reason in ("no_such_user", "unknown_refresh_token")


async def test_r68_who_logs_out_ends_all_tokens_of_his_session_and_no_others(scene, server, caller):
    here, elsewhere = await caller.log_in(), await caller.log_in()
    later = await caller.refresh(here.refresh_token)
    assert await server.revoke(later.refresh_token, None, ClientLogin("own"))
    for answer in (here, later):
        with pytest.raises(NotAuthenticated):
            await scene.judge(answer.access_token)
    assert (await caller.refusal(caller.refresh(later.refresh_token))).code == "invalid_grant"
    await scene.judge(elsewhere.access_token)
    await caller.refresh(elsewhere.refresh_token)


async def test_a_client_ends_no_session_of_another_and_unknown_tokens_are_no_error(server, caller):
    answer = await caller.log_in()
    for token in (answer.refresh_token, answer.access_token):
        assert not await server.revoke(token, None, ClientLogin("web"))
    for unknown in ("x", "a.b.c", "afr_" + "A" * 43, ""):
        assert not await server.revoke(unknown, "access_token", None)
    await caller.refresh(answer.refresh_token)
    error = await caller.refusal(server.revoke("x", None, ClientLogin("nobody")))
    assert (error.code, error.status) == ("invalid_client", 401)


async def test_a_refreshed_token_has_the_rights_its_user_has_now(scene, caller):
    answer = await caller.log_in()
    await scene.store.update_user(scene.alice.user_id, UserChange(scopes=[], roles=["guest"]))
    refreshed = await scene.judge((await caller.refresh(answer.refresh_token)).access_token)
    assert (refreshed.scopes, refreshed.roles) == (frozenset(), {"guest"})


async def test_a_limited_token_bears_no_roles_and_stays_limited(scene, caller):
    answer = await caller.log_in(scope="threads:write unknown")
    assert answer.scope == "threads:write"  # by his role, and no more than that
    principal = await scene.judge((await caller.refresh(answer.refresh_token)).access_token)
    assert (principal.scopes, principal.roles) == ({"threads:write"}, frozenset())
    second = await caller.log_in()
    narrowed = await caller.refresh(second.refresh_token, scope="threads:read")
    assert narrowed.scope == "threads:read"
    again = await scene.judge((await caller.refresh(narrowed.refresh_token)).access_token)
    assert again.roles == {"editor"}


async def test_a_client_with_scopes_never_has_more_than_them(scene, caller):
    answer = await caller.log_in(client="reader", scope="threads:read threads:write")
    assert answer.scope == "threads:read"
    principal = await scene.judge(
        (await caller.refresh(answer.refresh_token, "reader")).access_token
    )
    assert (principal.scopes, principal.roles) == ({"threads:read"}, frozenset())


async def test_an_administrator_may_ask_for_less(scene, caller):
    await scene.add_user("root", scopes=["admin"])
    assert (await caller.log_in("root")).scope == "admin"
    assert (await caller.log_in("root", scope="runs:create nonsense")).scope == "runs:create"
    limited = await caller.log_in("root", client="reader", scope="admin")
    assert limited.scope == "threads:read"


@pytest.mark.parametrize("scope", ["admin", "interrupts:answer:any", "admin interrupts:answer:any"])
async def test_an_administrator_gains_nothing_by_asking_for_less(scene, caller, scope):
    await scene.add_user("root", scopes=["admin"])
    answer = await caller.log_in("root", scope=scope)
    assert "interrupts:answer:any" not in answer.scope
    refreshed = await caller.refresh((await caller.log_in("root")).refresh_token, scope=scope)
    assert "interrupts:answer:any" not in refreshed.scope


async def test_whoever_may_answer_for_others_can_limit_himself_to_that(scene, caller):
    await scene.add_user("root", scopes=["admin", "interrupts:answer:any"])
    answer = await caller.log_in("root", scope="interrupts:answer:any")
    assert answer.scope == "interrupts:answer:any"


@pytest.mark.parametrize("scope", ['a"b', "a\tb", "ä", "x" * 129, " ".join(map(str, range(65)))])
async def test_a_malformed_scope_is_refused(caller, scope):
    assert (await caller.refusal(caller.log_in(scope=scope))).code == "invalid_scope"


async def test_a_client_without_the_refresh_grant_gets_no_refresh_token(caller):
    answer = await caller.log_in(client="once")
    assert answer.refresh_token is None
    assert "refresh_token" not in answer.body
    error = await caller.refusal(caller.refresh("afr_x", "once"))
    assert error.code == "unauthorized_client"
