"""Limits, quotas, roles, the audit log: strict, and nothing accepted without effect."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.config import Config, RateLimitConfig, RolesConfig, effective
from agentflow_server.models import Quota

Load = Callable[..., Config]
Problems = Callable[..., Sequence[str]]
QUOTA = 'expected a quota like "20/minute" (per second, minute, hour or day)'


def test_without_a_word_only_failed_authentication_is_limited(load: Load) -> None:
    config = load({})
    assert config.rate_limit == RateLimitConfig(
        per_principal=None, per_address=None, routes={}, failed_auth=Quota(20, 60)
    )
    assert (config.redis, config.authorization) == (None, None)
    assert (config.observability.audit.sink, config.audit_path) == ("off", None)
    assert config.limits.max_header_bytes == 32_768
    assert (config.limits.concurrent_requests, config.limits.trusted_proxies) == (None, [])


def test_quotas_are_read_and_shown_as_written(load: Load) -> None:
    section = {
        "per_principal": "100/second",
        "per_address": "3/hour",
        "routes": {"POST /threads/{thread_id}/messages": "1/day"},
        "failed_auth": "5/minute",
    }
    config = load({"rate_limit": section})
    assert config.rate_limit == RateLimitConfig(
        per_principal=Quota(100, 1),
        per_address=Quota(3, 3600),
        routes={"POST /threads/{thread_id}/messages": Quota(1, 86_400)},
        failed_auth=Quota(5, 60),
    )
    assert effective(config)["rate_limit"] == section


@pytest.mark.parametrize(
    "text",
    [
        "20",
        "20/min",
        "0/minute",
        "-1/minute",
        "1.5/minute",
        "20 / minute",
        "٣/minute",
        "",
        20,
        "/day",
    ],
)
def test_a_quota_is_a_number_per_time(problems: Problems, text: Any) -> None:
    (line,) = problems({"rate_limit": {"per_address": text}})
    assert line.startswith(f"agentflow.json: rate_limit.per_address: {QUOTA}, found ")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"rate_limit": {"failed_auth": None}}, f"rate_limit.failed_auth: {QUOTA}, found null"),
        ({"rate_limit": None}, "rate_limit: expected an object, found null"),
        (
            {"rate_limit": {"per_adress": "1/day"}},
            'rate_limit.per_adress: unknown key – did you mean "per_address"?',
        ),
        (
            {"rate_limit": {"routes": {"POST threads": "1/day"}}},
            (
                'rate_limit.routes.POST threads: expected a route like "POST /threads", '
                'found "POST threads"'
            ),
        ),
        (
            {"rate_limit": {"routes": {"POST /threads": "x"}}},
            f'rate_limit.routes.POST /threads: {QUOTA}, found "x"',
        ),
        (
            {"redis": "redis://localhost:6379/0"},
            'redis: is used by "rate_limit" alone, which is missing',
        ),
        (
            {"redis": "http://:hunter2@x", "rate_limit": {}},
            'redis: expected "redis://host:6379/0" or "rediss://…", found a string',
        ),
        (
            {"redis": "redis://:99999999", "rate_limit": {}},
            'redis: expected "redis://host:6379/0" or "rediss://…", found a string',
        ),
        (
            {"limits": {"concurrent_requests": 0}},
            "limits.concurrent_requests: expected at least 1, found 0",
        ),
        (
            {"limits": {"max_header_bytes": 10}},
            "limits.max_header_bytes: expected at least 4096, found 10",
        ),
        (
            {"limits": {"trusted_proxies": ["10.0.0.0/8", "proxy"]}},
            (
                'limits.trusted_proxies[1]: expected a network like "10.0.0.0/8", or an address, '
                'found "proxy"'
            ),
        ),
        (
            {"limits": {"trusted_proxies": ["10.0.0.1/8"]}},
            (
                'limits.trusted_proxies[0]: expected a network like "10.0.0.0/8", or an address, '
                'found "10.0.0.1/8"'
            ),
        ),
        (
            {"limits": {"trusted_proxies": ["::/0"]}},
            "limits.trusted_proxies[0]: would believe everybody; name the networks of your proxies",
        ),
        (
            {"limits": {"trusted_proxies": "10.0.0.0/8"}},
            'limits.trusted_proxies: expected a list, found "10.0.0.0/8"',
        ),
        (
            {"authorization": {}},
            (
                'authorization: expected null, "package.module:attribute" or '
                '{"roles": {"role": ["scope", …]}}, found an empty object'
            ),
        ),
        (
            {"authorization": "team"},
            'authorization: expected "package.module:attribute", found "team"',
        ),
        (
            {"authorization": {"role": {}}},
            'authorization.role: unknown key – did you mean "roles"?',
        ),
        (
            {"authorization": {"roles": {"reader": "threads:read"}}},
            'authorization.roles.reader: expected a list, found "threads:read"',
        ),
        (
            {"authorization": {"default_scopes": ["threads:read threads:write"]}},
            (
                "authorization.default_scopes[0]: expected a scope: visible ASCII without spaces, "
                'quotes and backslashes, found "threads:read threads:write"'
            ),
        ),
        (
            {"observability": {"audit": {"sink": "syslog"}}},
            (
                'observability.audit.sink: expected "off", "stdout", "file" or "database", '
                'found "syslog"'
            ),
        ),
        (
            {"observability": {"audit": {"sink": "file"}}},
            'observability.audit.path: is missing; "sink": "file" needs it',
        ),
        (
            {"observability": {"audit": {"sink": "stdout", "path": "audit.log"}}},
            'observability.audit.path: belongs to "sink": "file"',
        ),
        (
            {"observability": {"metric": True}},
            'observability.metric: unknown key – did you mean "metrics"?',
        ),
    ],
)
def test_a_mistake_in_a_section_is_one_line(
    problems: Problems, content: dict[str, Any], line: str
) -> None:
    assert list(problems(content)) == [f"agentflow.json: {line}"]


def test_the_address_of_redis_is_kept_and_its_password_never_shown(load: Load) -> None:
    config = load({"redis": "rediss://:hunter2@cache:6380/1", "rate_limit": {}})
    assert config.redis is not None
    assert config.redis.get_secret_value() == "rediss://:hunter2@cache:6380/1"
    assert effective(config)["redis"] == "rediss://:********@cache:6380/1"
    for text in (repr(config), json.dumps(effective(config))):
        assert "hunter2" not in text


def test_networks_are_written_in_one_form(load: Load) -> None:
    networks = ["127.0.0.1", "10.0.0.0/8", "FD00::/8"]
    limits = load({"limits": {"trusted_proxies": networks}}).limits
    assert limits.trusted_proxies == ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]


def test_authorization_is_roles_or_a_class_of_ones_own(load: Load) -> None:
    assert load({"authorization": "team.rules:Rules"}).authorization == "team.rules:Rules"
    section = {"roles": {"reader": ["threads:read"]}, "default_scopes": ["ping"]}
    config = load({"authorization": section})
    assert config.authorization == RolesConfig(
        roles={"reader": ["threads:read"]}, default_scopes=["ping"]
    )
    assert effective(config)["authorization"] == section
    assert load({"authorization": None}).authorization is None


def test_the_audit_file_is_found_from_the_folder(load: Load, tmp_path: Path) -> None:
    audit = {"sink": "file", "path": "logs/audit.jsonl"}
    config = load({"observability": {"audit": audit}})
    assert config.audit_path == tmp_path / "logs/audit.jsonl"
    assert load({"observability": {"audit": {"sink": "database"}}}).audit_path is None
