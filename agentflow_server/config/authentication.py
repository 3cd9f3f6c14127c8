"""The `auth` section and the environment → the methods of authentication, in their order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agentflow_server.config.environment import JwtEnvironment, merge
from agentflow_server.config.explain import Problems, Sections
from agentflow_server.config.jwt_keys import KeyContext, find_source
from agentflow_server.config.method_lists import (
    check_combination,
    check_issuers,
    owner_of_variables,
)
from agentflow_server.config.methods import (
    ApiKeyConfig,
    AuthConfig,
    JwtConfig,
    JwtSection,
    MethodSection,
    NoAuthConfig,
    StaticKeys,
)
from agentflow_server.config.reading import find_variable

_SECRETS = {"secret_key": "JWT_SECRET_KEY", "client_secret": "CLIENT_SECRET"}


def find_misplaced_secrets(raw_auth: Any, problems: Problems) -> bool:
    """Whether the file itself holds a secret; a default in `${VAR:-default}` is one too.

    Nor may a secret come where a name belongs, because names are repeated in messages.
    """
    before = len(problems.lines)
    for place, raw in _name_methods(raw_auth):
        if not isinstance(raw, dict):
            continue
        for key, variable in _SECRETS.items():
            if isinstance(raw.get(key), str) and find_variable(raw[key]) is None:
                problems.add(
                    f"{place}.{key}",
                    f'a secret does not belong into this file; write "${{{variable}}}" and put '
                    "the value into the environment or the env file",
                )
        keys = raw.get("keys")
        for n, key in enumerate(keys if isinstance(keys, list) else []):
            match key:
                case {"secret_env": str(name)} if "$" in name:
                    problems.add(
                        f"{place}.keys[{n}].secret_env", "expected a variable's name, without ${}"
                    )
    return len(problems.lines) > before


def resolve_auth(
    section: Any,
    *,
    raw_auth: Any,
    folder: Path,
    dotenv: Mapping[str, str],
    problems: Problems,
) -> tuple[AuthConfig, ...] | None:
    """None when there are problems."""
    before = len(problems.lines)
    sections = [_from_word(one) for one in (section if isinstance(section, list) else [section])]
    raw = _name_methods(raw_auth)
    places = [place for place, _ in raw]
    check_combination(places, sections, problems)
    owner = owner_of_variables(sections)
    environment = None if owner is None else _read_environment(dotenv, problems)
    if len(problems.lines) > before:
        return None
    methods = [
        _resolve(
            one,
            KeyContext(
                place=place,
                folder=folder,
                variables=merge(dotenv),
                environment=environment if n == owner else None,
                secret_name=_name_secret(written),
                problems=problems,
            ),
        )
        for n, (one, (place, written)) in enumerate(zip(sections, raw, strict=True))
    ]
    found = tuple(method for method in methods if method is not None)
    if len(found) == len(methods):
        check_issuers(places, found, problems)
    return found if len(problems.lines) == before else None


def _name_methods(raw_auth: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(raw_auth, list):
        return [(f"auth[{n}]", raw) for n, raw in enumerate(raw_auth)]
    return [("auth", raw_auth)]


def _name_secret(raw: Any) -> str:
    name = find_variable(raw.get("secret_key")) if isinstance(raw, dict) else None
    return name or "JWT_SECRET_KEY"


def _from_word(section: MethodSection | str | None) -> MethodSection:
    match section:
        case "jwt":
            return JwtSection()
        case "api_key":
            return ApiKeyConfig()
        case None | str():
            return NoAuthConfig()
    return section


def _read_environment(dotenv: Mapping[str, str], problems: Problems) -> JwtEnvironment | None:
    try:
        return JwtEnvironment.read(dotenv)
    except ValidationError as error:
        Problems("environment", problems.lines).add_invalid(error, Sections({}))
        return None


def _resolve(section: MethodSection, context: KeyContext) -> AuthConfig | None:
    return _resolve_jwt(section, context) if isinstance(section, JwtSection) else section


def _resolve_jwt(section: JwtSection, context: KeyContext) -> JwtConfig | None:
    source = find_source(section, context)
    if source is None:
        return None
    values: dict[str, Any] = {
        name: value for name, value in section if name in JwtConfig.model_fields
    }
    del values["algorithms"]
    if section.algorithms and not isinstance(source, StaticKeys):
        values["algorithms"] = tuple(section.algorithms)
    if context.environment is not None and context.environment.audience is not None:
        values["audience"] = (context.environment.audience,)
    return JwtConfig(**values | {"source": source, "issuer": context.issuer(section)})
