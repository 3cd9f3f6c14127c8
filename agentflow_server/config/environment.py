"""Settings that come from environment variables or the dotenv file."""

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from dotenv.main import DotEnv
from dotenv.parser import parse_stream
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agentflow_server.config.explain import Problems, suggest
from agentflow_server.config.fields import DatabaseUrl, Host, Text
from agentflow_server.config.methods import Algorithm
from agentflow_server.config.models import Config, LogLevel
from agentflow_server.config.reading import read_file
from agentflow_server.errors import ConfigError


class _Environment(BaseSettings):
    """A real environment variable beats the dotenv file."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=True, hide_input_in_errors=True
    )

    @classmethod
    def read(cls, dotenv: Mapping[str, str]) -> Self:
        """Raises pydantic's ValidationError, located by the variables' names."""
        names = {str(field.validation_alias) for field in cls.model_fields.values()}
        values: dict[str, Any] = {n: value for n, value in dotenv.items() if n in names}
        return cls(**values)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, init_settings)


class ServerEnvironment(_Environment):
    """Where the server runs."""

    host: Host | None = Field(default=None, validation_alias="AGENTFLOW_HOST")
    port: int | None = Field(default=None, ge=0, le=65535, validation_alias="AGENTFLOW_PORT")
    database: DatabaseUrl | None = Field(default=None, validation_alias="AGENTFLOW_DATABASE")
    log_level: LogLevel | None = Field(default=None, validation_alias="AGENTFLOW_LOG_LEVEL")


class JwtEnvironment(_Environment):
    """What `"auth": "jwt"` reads."""

    secret_key: SecretStr | None = Field(default=None, validation_alias="JWT_SECRET_KEY")
    secret_keys: SecretStr | None = Field(default=None, validation_alias="JWT_SECRET_KEYS")
    algorithm: Algorithm | None = Field(default=None, validation_alias="JWT_ALGORITHM")
    issuer: Text | None = Field(default=None, validation_alias="JWT_ISSUER")
    audience: Text | None = Field(default=None, validation_alias="JWT_AUDIENCE")


_PREFIX = "AGENTFLOW_"
# The names that are not fields above: they are read where they are needed.
_KNOWN = {
    "AGENTFLOW_AUDIT_KEY",
    "AGENTFLOW_CARD_API_URL",
    "AGENTFLOW_CARD_TOKEN",
    "AGENTFLOW_CONFIG",
    "AGENTFLOW_SESSION",
    "AGENTFLOW_TOKEN",
    "AGENTFLOW_URL",
}.union(str(field.validation_alias) for field in ServerEnvironment.model_fields.values())
# Kubernetes tells every pod where a service is, here one that is called agentflow.
_OF_A_SERVICE = re.compile("AGENTFLOW_(SERVICE_|PORT_[0-9])")


def unknown_variables(config: Config) -> Sequence[str]:
    """A warning for each that looks like one of ours, means nothing, and is not in the file."""
    named = set(re.findall(r"\$\{(\w+)", read_file(config.path)))
    known = [name.removeprefix(_PREFIX) for name in sorted(_KNOWN)]
    return [
        f"environment: {name}: unknown variable{suggest(name.removeprefix(_PREFIX), known, _PREFIX)}"
        for name in sorted(os.environ.keys() - _KNOWN - named)
        if name.startswith(_PREFIX) and not _OF_A_SERVICE.match(name)
    ]


def read_dotenv(path: Path, problems: Problems) -> dict[str, str]:
    """The variables of a dotenv file; nothing is put into the environment yet."""
    try:
        text = read_file(path)
    except ConfigError as exc:
        problems.add("env", exc.problems[0])
        return {}
    broken = [binding.original.line for binding in parse_stream(io.StringIO(text)) if binding.error]
    for line in broken:
        problems.add("env", f"{path}: line {line}: expected NAME=value")
    if "\0" in text:
        problems.add("env", f"{path}: contains NUL")
    if broken or "\0" in text:
        return {}
    # Within the file, ${NAME} too means the real environment first.
    values = DotEnv(None, io.StringIO(text), override=False).dict()
    return {name: value for name, value in values.items() if value is not None}


def merge(dotenv: Mapping[str, str]) -> dict[str, str]:
    """The dotenv file's values under those of the real environment."""
    return {**dotenv, **os.environ}


def publish(dotenv: Mapping[str, str]) -> None:
    """Show the dotenv file's values to the agent; a real environment variable stays."""
    for name, value in dotenv.items():
        os.environ.setdefault(name, value)
