"""Secrets that agentflow.json names and nobody has set: those that anybody can make up."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from agentflow_server.config.addresses import is_web_address
from agentflow_server.config.environment import merge, read_dotenv
from agentflow_server.config.explain import Problems
from agentflow_server.config.reading import (
    Expansion,
    find_config_file,
    find_variable,
    parse_object,
    read_file,
)
from agentflow_server.errors import ConfigError


@dataclass(frozen=True, slots=True)
class UnsetSecrets:
    """The names of variables. `env` is the dotenv file, which need not be there yet."""

    file: Path
    names: tuple[str, ...]
    env: Path | None


def find_unset_secrets(path: Path | None) -> UnsetSecrets:
    """Secrets shared with others, such as an issuer's, and the private half of a pair are not
    among them.

    Raises ConfigError for what cannot be read; all else that may be wrong is found by loading.
    """
    file = find_config_file(path)
    raw = parse_object(read_file(file), source=file.name)
    problems = Problems(file.name)
    env = _find_dotenv(raw, file.parent, problems)
    is_there = env is not None and os.path.lexists(env)
    values = merge(read_dotenv(env, problems) if env and is_there else {})
    if problems.lines:
        raise ConfigError(*problems.lines)
    # One that refers to a variable which is not set is not ours to replace.
    written = dotenv_values(env, interpolate=False, encoding="utf-8-sig") if is_there else {}
    wanted = dict.fromkeys((*_find_jwt(raw.get("auth"), values), *_find_clients(raw)))
    unset = [name for name in wanted if name not in os.environ and not written.get(name)]
    return UnsetSecrets(file, tuple(unset), env)


def _find_dotenv(raw: Mapping[str, Any], folder: Path, problems: Problems) -> Path | None:
    env = Expansion(os.environ, problems).expand(raw.get("env"), ("env",))
    return folder / env if isinstance(env, str) and env.strip() else None


def _find_jwt(auth: Any, values: Mapping[str, str]) -> Iterator[str]:
    methods = [
        {"method": "jwt"} if method == "jwt" else method
        for method in (auth if isinstance(auth, list) else [auth])
    ]
    jwt = [
        method for method in methods if isinstance(method, dict) and method.get("method") == "jwt"
    ]
    for method in jwt:
        # As `owner_of_variables` has it.
        owns = len(jwt) == 1 or method.get("issuer") is None
        yield from _find_in_method(method, values, owns=owns)


def _find_in_method(
    method: Mapping[str, Any], values: Mapping[str, str], *, owns: bool
) -> Iterator[str]:
    """`owns`: the JWT_ variables are about this one."""
    said = Expansion(values, Problems("")).expand(dict(method))
    algorithm = (owns and values.get("JWT_ALGORITHM")) or said.get("algorithm") or "HS256"
    has_key = owns and any(values.get(name) for name in ("JWT_SECRET_KEY", "JWT_SECRET_KEYS"))
    match said:
        case {"keys": [*keys]}:
            yield from _find_in_keys(keys)
        case {"jwks_file": str()} | {"jwks_url": str()}:
            pass
        case _ if has_key or not str(algorithm).startswith("HS"):
            pass
        case {"secret_key": str()}:
            if name := find_variable(method["secret_key"]):
                yield name
        case {"issuer": str(issuer)} if is_web_address(issuer):
            pass
        case _ if owns:
            yield "JWT_SECRET_KEY"


def _find_in_keys(keys: Sequence[Any]) -> Iterator[str]:
    for key in keys:
        match key:
            case {"secret_env": str(name), "algorithm": str(own)} if own.startswith("HS"):
                if name.isidentifier():
                    yield name


def _find_clients(raw: Mapping[str, Any]) -> Iterator[str]:
    match raw:
        case {"token_server": {"clients": dict(clients)}}:
            for client in clients.values():
                secret = client.get("secret") if isinstance(client, dict) else None
                if name := find_variable(secret):
                    yield name
