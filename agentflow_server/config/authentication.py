"""The `auth` section and the JWT_ variables → one authentication config."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError

from agentflow_server.config.environment import JwtEnvironment
from agentflow_server.config.explain import Problems, Sections
from agentflow_server.config.models import (
    AuthConfig,
    CustomAuthConfig,
    JwtConfig,
    JwtSection,
    NoAuthConfig,
)

_VARIABLE_ONLY = re.compile(r"\$\{([A-Za-z_]\w*)\}")


def find_literal_secret(raw_auth: Any, problems: Problems) -> bool:
    """Whether the file itself holds the key; a default in `${VAR:-default}` is one too."""
    match raw_auth:
        case {"secret_key": str(written)} if not _VARIABLE_ONLY.fullmatch(written):
            problems.add(
                "auth.secret_key",
                'a secret does not belong into this file; write "${JWT_SECRET_KEY}" and put the '
                "value into the environment or the env file",
            )
            return True
    return False


def resolve_auth(
    section: JwtSection | CustomAuthConfig | NoAuthConfig | str | None,
    *,
    raw_auth: Any,
    dotenv: Mapping[str, str],
    problems: Problems,
) -> AuthConfig | None:
    """None when there are problems."""
    match section:
        case CustomAuthConfig():
            return section
        case JwtSection():
            return _resolve_jwt(section, _named_variable(raw_auth), dotenv, problems)
        case "jwt":
            return _resolve_jwt(JwtSection(), None, dotenv, problems)
    return NoAuthConfig()


def _named_variable(raw_auth: Any) -> str | None:
    match raw_auth:
        case {"secret_key": str(written)} if match := _VARIABLE_ONLY.fullmatch(written):
            return match[1]
    return None


def _resolve_jwt(
    section: JwtSection, named: str | None, dotenv: Mapping[str, str], problems: Problems
) -> JwtConfig | None:
    before = len(problems.lines)
    try:
        environment = JwtEnvironment.read(dotenv)
    except ValidationError as error:
        Problems("environment", problems.lines).add_invalid(error, Sections({}))
        environment = JwtEnvironment.model_construct()
    name = named or "JWT_SECRET_KEY"
    secret = _choose_secret(section.secret_key, environment.secret_key, name, problems)
    algorithm = environment.algorithm or section.algorithm
    if algorithm is None and secret and "-----BEGIN" in secret.get_secret_value():
        problems.add(
            "auth.algorithm",
            f"is missing: {name} holds a PEM key, so say what it is for, e.g. JWT_ALGORITHM=RS256",
        )
    if secret is None or len(problems.lines) > before:
        return None
    return JwtConfig(
        algorithm=algorithm or "HS256",
        secret_key=secret,
        secret_name=name,
        issuer=environment.issuer or section.issuer,
        audience=environment.audience or section.audience,
        user_id_claim=section.user_id_claim,
        leeway=section.leeway,
        allow_weak_secret=section.allow_weak_secret,
    )


def _choose_secret(
    from_file: SecretStr | None, from_variable: SecretStr | None, name: str, problems: Problems
) -> SecretStr | None:
    secret = from_file if from_file is not None else from_variable
    if secret is None:
        problems.add(
            "auth",
            'JWT_SECRET_KEY is not set; "agentflow secret" makes a good one for the environment '
            "or the env file",
        )
    elif not secret.get_secret_value().strip():
        problems.add("auth", f'{name} is empty; "agentflow secret" makes a good one')
    elif from_variable is not None and from_variable != secret:
        # Two keys: whichever were taken, somebody meant the other one.
        problems.add("auth.secret_key", f"{name} and JWT_SECRET_KEY differ; set only one of them")
    else:
        return secret
    return None
