"""Where the keys for JWTs come from: the file, else the environment, else the issuer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from agentflow_server.config.addresses import explain_issuer, is_web_address
from agentflow_server.config.environment import JwtEnvironment
from agentflow_server.config.explain import Problems
from agentflow_server.config.methods import (
    Discovery,
    JwksFile,
    JwksUrl,
    JwtSection,
    KeyConfig,
    KeySection,
    KeySource,
    StaticKeys,
)
from agentflow_server.config.reading import read_file
from agentflow_server.errors import ConfigError

_ADVICE = '"agentflow secret" makes a good one'
_JSON_LIST = 'expected a JSON list of strings, the newest first: ["…", "…"]'


@dataclass(frozen=True, slots=True)
class KeyContext:
    """What surrounds one JWT method."""

    place: str
    """Where the method is in the file: `auth`, `auth[1]`."""
    folder: Path
    variables: Mapping[str, str]
    environment: JwtEnvironment | None
    """None when the JWT_ variables belong to another method."""
    secret_name: str
    """The variable that `secret_key` names."""
    problems: Problems

    def refuse(self, where: str, why: str) -> None:
        self.problems.add(f"{self.place}.{where}" if where else self.place, why)

    def issuer(self, section: JwtSection) -> str | None:
        return (self.environment and self.environment.issuer) or section.issuer


def find_source(section: JwtSection, context: KeyContext) -> KeySource | None:
    """None when there is a problem."""
    before = len(context.problems.lines)
    source = _find_source(section, context)
    _check_options(section, source, context)
    return source if len(context.problems.lines) == before else None


def _find_source(section: JwtSection, context: KeyContext) -> KeySource | None:
    written = {
        "secret_key": section.secret_key,
        "keys": section.keys,
        "jwks_file": section.jwks_file,
        "jwks_url": section.jwks_url,
    }
    names = [name for name, value in written.items() if value is not None]
    if len(names) > 1:
        context.refuse("", f"expected one of {', '.join(written)}, found {' and '.join(names)}")
        return None
    if section.secret_key is not None:
        return _from_secret(section.secret_key, section, context)
    if section.keys is not None:
        return _from_keys(section.keys, context)
    if section.jwks_file is not None:
        path = context.folder / section.jwks_file
        return None if _read(path, "jwks_file", context) is None else JwksFile(path)
    if section.jwks_url is not None:
        return JwksUrl(section.jwks_url)
    return _from_environment(section, context)


def _check_options(section: JwtSection, source: KeySource | None, context: KeyContext) -> None:
    """Nothing is accepted and ignored."""
    match source:
        case None:
            return
        case StaticKeys():
            if section.algorithms is not None:
                context.refuse("algorithms", "is for key sets; a key of your own has an algorithm")
            if section.keys is not None and section.algorithm is not None:
                context.refuse("algorithm", "each of the keys has its own")
        case _:
            if section.algorithm is not None:
                context.refuse("algorithm", 'is for a key of your own; write "algorithms": […]')
            if section.allow_weak_secret:
                context.refuse("allow_weak_secret", "is for a secret; a key set has none")


def _from_environment(section: JwtSection, context: KeyContext) -> KeySource | None:
    environment = context.environment
    one = environment.secret_key if environment else None
    many = environment.secret_keys if environment else None
    if one is not None and many is not None:
        context.refuse("", "JWT_SECRET_KEY and JWT_SECRET_KEYS are both set; set only one of them")
    elif one is not None:
        return _own_keys({"JWT_SECRET_KEY": one}, section, context)
    elif many is not None:
        return _own_keys(_read_list(many, context), section, context)
    elif section.issuer is not None and is_web_address(section.issuer):
        if why := explain_issuer(context.issuer(section) or ""):
            context.refuse("issuer", why)
        return Discovery()
    elif environment is None:
        context.refuse(
            "",
            "has no key; write secret_key, keys, jwks_file, jwks_url, or an issuer that is an "
            "https address (of several methods, JWT_SECRET_KEY belongs to the one without issuer)",
        )
    else:
        context.refuse(
            "", f"JWT_SECRET_KEY is not set; {_ADVICE} for the environment or the env file"
        )
    return None


def _from_secret(secret: SecretStr, section: JwtSection, context: KeyContext) -> StaticKeys | None:
    name, environment = context.secret_name, context.environment
    # Two keys: whichever were taken, somebody meant the other one.
    if environment and environment.secret_key not in (None, secret):
        context.refuse("secret_key", f"{name} and JWT_SECRET_KEY differ; set only one of them")
    if environment and environment.secret_keys is not None:
        context.refuse(
            "secret_key", f"{name} and JWT_SECRET_KEYS are both set; set only one of them"
        )
    return _own_keys({name: secret}, section, context)


def _own_keys(
    secrets: Mapping[str, SecretStr], section: JwtSection, context: KeyContext
) -> StaticKeys | None:
    """Keys without ids, all for the one configured algorithm."""
    algorithm = (context.environment and context.environment.algorithm) or section.algorithm
    for name, secret in secrets.items():
        text = secret.get_secret_value()
        if not text.strip():
            context.refuse("", f"{name} is empty; {_ADVICE}")
        elif algorithm is None and "-----BEGIN" in text:
            context.refuse(
                "algorithm",
                f"is missing: {name} holds a PEM key, so say what it is for, e.g. "
                "JWT_ALGORITHM=RS256",
            )
    keys = [KeyConfig(None, algorithm or "HS256", secret, name) for name, secret in secrets.items()]
    _check_distinct(keys, context)
    return StaticKeys(tuple(keys)) if keys else None


def _read_list(text: SecretStr, context: KeyContext) -> Mapping[str, SecretStr]:
    try:
        found = json.loads(text.get_secret_value())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        Problems("environment", context.problems.lines).add("JWT_SECRET_KEYS", _JSON_LIST)
        return {}
    return {f"JWT_SECRET_KEYS[{n}]": SecretStr(one) for n, one in enumerate(found)}


def _from_keys(sections: Sequence[KeySection], context: KeyContext) -> StaticKeys | None:
    kids: dict[str, int] = {}
    for n, section in enumerate(sections):
        if section.kid is not None and (first := kids.setdefault(section.kid, n)) != n:
            context.refuse(f"keys[{n}].kid", f"is that of keys[{first}] too")
    keys = [_read_key(section, f"keys[{n}]", context) for n, section in enumerate(sections)]
    found = [key for key in keys if key is not None]
    _check_distinct(found, context)
    return StaticKeys(tuple(found))


def _read_key(section: KeySection, where: str, context: KeyContext) -> KeyConfig | None:
    match section.secret_env, section.public_key_file:
        case str(variable), None:
            name, text = variable, _read_variable(variable, f"{where}.secret_env", context)
        case None, str(file):
            where = f"{where}.public_key_file"
            if section.algorithm.startswith("HS"):
                context.refuse(where, f"{section.algorithm} needs a shared secret: secret_env")
            name, text = file, _read(context.folder / file, where, context)
        case _:
            context.refuse(where, "expected either secret_env or public_key_file")
            return None
    if text is None:
        return None
    return KeyConfig(section.kid, section.algorithm, SecretStr(text), name)


def _read_variable(name: str, where: str, context: KeyContext) -> str | None:
    text = context.variables.get(name)
    if text is None:
        context.refuse(where, f"the environment variable {name} is not set")
    elif not text.strip():
        context.refuse(where, f"{name} is empty; {_ADVICE}")
    return text


def _read(path: Path, where: str, context: KeyContext) -> str | None:
    try:
        return read_file(path)
    except ConfigError as exc:
        context.refuse(where, exc.problems[0])
        return None


def _check_distinct(keys: Sequence[KeyConfig], context: KeyContext) -> None:
    seen: dict[str, str] = {}
    for key in keys:
        first = seen.setdefault(key.material.get_secret_value().strip(), key.name)
        if first != key.name:
            context.refuse("", f"{first} and {key.name} hold the same key")
