"""The section `webhooks`: secrets come from the environment, and are good ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.config import Config, effective, load_config
from agentflow_server.errors import ConfigError

GOOD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1DDiGRPXvnA="
OTHER = "whsec_c2VjcmV0IG9mIGFuIG9sZGVyIHRpbWUgdGhhdCBoYXMgcGFzc2Vk"
SHORT = "whsec_dG9vIHNob3J0"

Load = Callable[[Any], Config]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setenv("GOOD", GOOD)
    monkeypatch.setenv("UNPADDED", GOOD.rstrip("="))
    monkeypatch.setenv("OTHER", OTHER)
    monkeypatch.setenv("SHORT", SHORT)
    monkeypatch.setenv("LONG", "whsec_" + "A" * 88)
    monkeypatch.setenv("PLAIN", "secret".center(40, "x"))
    monkeypatch.setenv("NOT_BASE64", "whsec_" + "!" * 43)
    monkeypatch.setenv("BLANK", " ")

    def load(section: Any) -> Config:
        file = tmp_path / "agentflow.json"
        file.write_text(json.dumps({"agent": "a:b", "auth": None, "webhooks": section}))
        return load_config(file)

    return load


def refusals(load: Load, section: Any) -> Sequence[str]:
    with pytest.raises(ConfigError) as caught:
        load(section)
    return caught.value.problems


def keys(config: Config) -> Sequence[str]:
    assert config.webhooks is not None
    return [key.get_secret_value() for key in config.webhooks.keys]


def test_without_the_section_there_are_no_webhooks(load: Load) -> None:
    assert load(None).webhooks is None


def test_the_defaults_are_the_safe_ones(load: Load) -> None:
    webhooks = load({"secret": "GOOD"}).webhooks
    assert webhooks is not None
    assert (webhooks.allow_private, webhooks.allow_hosts) == (False, [])
    assert (webhooks.timeout, webhooks.max_attempts) == (10.0, 8)


def test_one_secret_or_two_are_read_from_the_environment(load: Load) -> None:
    assert keys(load({"secret": "GOOD"})) == [GOOD]
    assert keys(load({"secret": "UNPADDED"})) == [GOOD.rstrip("=")]
    assert keys(load({"secret": ["OTHER", "GOOD"]})) == [OTHER, GOOD]


def test_a_secret_may_come_from_the_dotenv_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"FROM_FILE={GOOD}\n")
    file = tmp_path / "agentflow.json"
    text = {"agent": "a:b", "auth": None, "env": ".env", "webhooks": {"secret": "FROM_FILE"}}
    file.write_text(json.dumps(text))
    assert keys(load_config(file)) == [GOOD]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ABSENT", "the environment variable ABSENT is not set"),
        ("BLANK", "BLANK is empty"),
        ("SHORT", "SHORT is of 9 bytes, expected 24 to 64"),
        ("LONG", "LONG is of 66 bytes, expected 24 to 64"),
        ("PLAIN", "PLAIN does not begin with whsec_"),
        ("NOT_BASE64", "NOT_BASE64 is not base64 after whsec_"),
    ],
)
def test_a_secret_that_is_none_is_refused_in_one_line(load: Load, name: str, why: str) -> None:
    (line,) = refusals(load, {"secret": name})
    assert line.startswith(f"agentflow.json: webhooks.secret: {why}")


def test_two_secrets_must_differ(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGAIN", GOOD)
    (line,) = refusals(load, {"secret": ["GOOD", "AGAIN"]})
    assert line == "agentflow.json: webhooks.secret: AGAIN holds the same secret as GOOD"


@pytest.mark.parametrize(
    ("section", "lines"),
    [
        ({}, ["webhooks.secret: is missing"]),
        ({"secret": []}, ["webhooks.secret: expected the name of an environment variable"]),
        ({"secret": ["A", "B", "C"]}, ["webhooks.secret: expected the name of an"]),
        ({"secret": GOOD}, ["webhooks.secret[0]: expected the name of an environment variable"]),
        ({"secret": "${GOOD}"}, ["webhooks.secret[0]: expected the name of an environment"]),
        ({"secret": ["GOOD", 5]}, ["webhooks.secret[1]: expected a string, found 5"]),
        ({"secret": "GOOD", "allow_hosts": ["https://a.example/"]}, ["webhooks.allow_hosts[0]: "]),
        ({"secret": "GOOD", "allow_hosts": ["A.example"]}, ["webhooks.allow_hosts[0]: "]),
        ({"secret": "GOOD", "allow_hosts": ["*"]}, ["webhooks.allow_hosts[0]: "]),
        ({"secret": "GOOD", "timeout": 0}, ["webhooks.timeout: expected a number above"]),
        ({"secret": "GOOD", "max_attempts": 0}, ["webhooks.max_attempts: expected at least 1"]),
        ({"secret": "GOOD", "alow_private": True}, ["webhooks.alow_private: unknown key"]),
        ("GOOD", ["webhooks: expected an object"]),
    ],
)
def test_what_is_not_understood_is_refused(load: Load, section: Any, lines: list[str]) -> None:
    found = refusals(load, section)
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith(f"agentflow.json: {expected}")


def test_no_secret_is_ever_shown(load: Load) -> None:
    config = load({"secret": ["OTHER", "GOOD"]})
    shown = json.dumps(effective(config)) + repr(config) + str(config.webhooks)
    for name in ("SHORT", "PLAIN", "NOT_BASE64"):
        shown += "".join(refusals(load, {"secret": name}))
    shown += "".join(refusals(load, {"secret": GOOD}))
    for secret in (GOOD, OTHER, SHORT, "secretx", "!!!!"):
        assert secret.removeprefix("whsec_") not in shown
    assert effective(config)["webhooks"]["secret"] == ["OTHER", "GOOD"]
