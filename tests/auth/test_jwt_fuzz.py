"""R86: whatever is sent, the verifier answers with its own refusal and nothing else."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentflow_server.auth.jwks import parse_jwks
from agentflow_server.errors import NotAuthenticated

SETTINGS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["HS256", "none", "JWT", "alice", 1_800_003_600, 10**400, "\ud800", "\0"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)
members = st.sampled_from(
    ["alg", "typ", "kid", "crit", "jwk", "exp", "nbf", "iat", "aud", "iss", "jti", "user_id", "sub"]
)
segment_text = st.text("ABCabc012-_=. \n", max_size=40)


def expect_a_verdict(desk: Any, token: str) -> None:
    refusals = []
    try:
        principal = desk.auth.verify(token)
    except NotAuthenticated as exc:
        refusals.append(exc)
    for refusal in refusals:
        assert str(refusal) in {"Could not validate credentials", "Token has expired"}
        assert refusal.reason != "unverifiable", "refused, but not by a rule of ours"
    if not refusals:
        assert isinstance(principal.id, str)
        assert principal.id.strip()
        assert principal.claims["user_id"] == principal.id


@SETTINGS
@given(token=st.text() | st.builds(".".join, st.lists(segment_text, min_size=1, max_size=6)))
def test_r86_any_text(desk: Any, token: str) -> None:
    with pytest.raises(NotAuthenticated):
        desk.auth.verify(token)


@SETTINGS
@given(header=st.dictionaries(members, values), claims=st.dictionaries(members, values))
def test_r86_signed_tokens_with_any_header_and_claims(
    desk: Any, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    expect_a_verdict(desk, desk.write(claims, header=header))
    expect_a_verdict(desk, desk.write(claims))


@SETTINGS
@given(changes=st.dictionaries(members, values))
def test_r86_good_claims_with_any_change(desk: Any, changes: dict[str, Any]) -> None:
    expect_a_verdict(desk, desk.write(desk.claims(**changes)))
    expect_a_verdict(desk, desk.write(header=changes))


@SETTINGS
@given(header=st.binary(), payload=st.binary())
def test_r86_signed_tokens_of_any_bytes(desk: Any, header: bytes, payload: bytes) -> None:
    expect_a_verdict(desk, desk.write(raw_header=header, raw_payload=payload))
    expect_a_verdict(desk, desk.write(raw_payload=payload))


@SETTINGS
@given(data=st.data())
def test_r86_a_good_token_with_one_character_changed_is_refused(
    desk: Any, data: st.DataObject
) -> None:
    good = desk.write()
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.characters().filter(lambda c: c != good[place]))
    with pytest.raises(NotAuthenticated):
        desk.auth.verify(good[:place] + other + good[place + 1 :])


@SETTINGS
@given(
    jwks=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["kty", "kid", "use", "alg", "crv", "key_ops", "n", "e", "x", "y", "d"]
            ),
            values | st.sampled_from(["RSA", "EC", "oct", "P-256", "sig", "RS256", "AQAB"]),
        )
        | values,
        max_size=4,
    )
)
def test_r86_a_key_set_of_any_content_is_read_or_refused(jwks: list[Any]) -> None:
    with suppress(ValueError):
        assert all(key.algorithm != "HS256" for key in parse_jwks(dump({"keys": jwks})).keys)


@SETTINGS
@given(data=st.binary() | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_r86_a_key_set_of_any_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several texts
        parse_jwks(data)


def dump(value: Any) -> bytes:
    return json.dumps(value).encode(errors="surrogatepass")


def test_r86_the_fuzzer_for_millions_of_inputs_runs() -> None:
    script = Path(__file__).with_name("fuzz_verifier.py")
    done = subprocess.run(
        [sys.executable, script, "2000", "1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "accepted" in done.stdout


def test_the_fuzzed_desk_accepts_a_good_token(desk: Any) -> None:
    expect_a_verdict(desk, desk.write())
    assert json.loads(json.dumps(dict(desk.auth.verify(desk.write()).claims)))["exp"] > 0
