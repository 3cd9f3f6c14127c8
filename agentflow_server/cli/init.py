"""`agentflow init`: a project that starts and passes its test at once."""

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Annotated, Literal

import typer

from agentflow_server import __version__

Auth = Literal["none", "jwt", "custom", "api_key", "oauth", "firebase", "database", "mfa"]

_EXTRAS = {"firebase", "database", "mfa"}
_BUILT_IN = {"none", "jwt"}
_HEADER = ' \\\n  -H "Authorization: Bearer $TOKEN"'
_TEMPLATES = files("agentflow_server") / "templates"
_SCHEMA = files("agentflow_server") / "config" / "agentflow.schema.json"


def init(
    directory: Annotated[
        Path, typer.Argument(help="The project's folder; made if it is missing.")
    ] = Path(),
    auth: Annotated[Auth, typer.Option(help="Who may use the server.")] = "none",
) -> None:
    """Make a project: an agent, its configuration, its authentication, and a test."""
    # Imported here because the other commands' --help does without it.
    from agentflow_server.cli.failures import fail  # noqa: PLC0415

    key = "agentflow_" + secrets.token_urlsafe(32)
    project = build_project(auth, name=directory.absolute().name or "agent", key=key)
    if taken := find_taken(directory, project):
        fail(f"{directory}: nothing was written, these exist already: {', '.join(taken)}")
    try:
        write_project(directory, project)
    except OSError as exc:
        fail(f"{exc.filename or directory}: cannot be written: {exc.strerror or exc}")
    _print_next_steps(directory, project, auth, key)


def build_project(auth: Auth, *, name: str, key: str) -> dict[str, str]:
    """The texts of the files by their paths, with fresh secrets; `key` is alice's credential."""
    extra = f"[{auth}]" if auth in _EXTRAS else ""
    header = "" if auth == "none" else _HEADER
    row = "" if auth in _BUILT_IN else f"| `auth/{auth}.py` | who may use it; yours to edit |\n"
    fresh = _fresh_secrets(key)
    test = _read("common/test_agent.py") + ("" if auth == "none" else _read("common/test_auth.py"))
    project = {
        "agentflow.json": _fill(
            "common/agentflow.json", auth=_fill(f"auth/{auth}/auth.json").rstrip()
        ),
        "agentflow.schema.json": _SCHEMA.read_text("utf-8"),
        "graph/__init__.py": "",
        "graph/react.py": _read("common/react.py"),
        ".env": _fill(f"auth/{auth}/env", **fresh),
        ".env.example": _fill(f"auth/{auth}/env", **dict.fromkeys(fresh, "")),
        ".gitignore": _read("common/gitignore"),
        "requirements.txt": _fill("common/requirements", extra=extra, version=__version__),
        "conftest.py": _read(f"auth/{auth}/conftest.py"),
        "tests/test_agent.py": test,
        "README.md": _fill(
            "common/README.md",
            name=name,
            access=_read(f"auth/{auth}/access.md").rstrip(),
            header=header,
            auth_row=row,
        ),
    }
    if auth not in _BUILT_IN:
        # Without it, an installed package named `auth` would be found before this folder.
        project["auth/__init__.py"] = ""
        backend = f"{auth}.py"
        project[f"auth/{backend}"] = _find_backends().joinpath(backend).read_text("utf-8")
    return project


def find_taken(directory: Path, project: Mapping[str, str]) -> list[str]:
    """Whatever is in the way: a file of the same name, or a file where a folder has to be."""
    if _is_no_folder(directory):
        return [str(directory)]
    folders = {str(parent) for path in project for parent in Path(path).parents} - {"."}
    in_the_way = [path for path in project if os.path.lexists(directory / path)]
    in_the_way += [path for path in folders if _is_no_folder(directory / path)]
    return sorted(in_the_way)


def _is_no_folder(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()


def write_project(directory: Path, project: Mapping[str, str]) -> None:
    """Raises OSError, FileExistsError too: nothing is ever overwritten."""
    for path, text in project.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if path == ".env" else 0o666
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)


def _fresh_secrets(key: str) -> dict[str, str]:
    """What `.env` has and `.env.example` leaves empty."""
    entry = {"user_id": "alice", "name": "alice", "permissions": []}
    user = {"id": "alice", "username": "alice", "email": "alice@example.com", "roles": ["user"]}
    return {
        "jwt_secret": secrets.token_urlsafe(48),
        "api_keys": json.dumps({hashlib.sha256(key.encode()).hexdigest(): entry}),
        "custom_tokens": json.dumps({key: user}),
        "mfa_secrets": json.dumps({"alice": base64.b32encode(secrets.token_bytes(20)).decode()}),
    }


def _read(template: str) -> str:
    return _TEMPLATES.joinpath("project", f"{template}.txt").read_text("utf-8")


def _fill(template: str, **values: str) -> str:
    return Template(_read(template)).substitute(values)


def _find_backends() -> Traversable:
    """The files of top-level `auth/`: in the wheel they are templates, else it is a checkout."""
    packed = _TEMPLATES / "auth"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "auth"


def _print_next_steps(directory: Path, project: Mapping[str, str], auth: Auth, key: str) -> None:
    typer.echo(f"Made {len(project)} files in {directory.absolute()}\n")
    if directory.absolute() != Path.cwd():
        typer.echo(f"  cd {directory}")
    typer.echo("  pip install -r requirements.txt")
    typer.echo("  python -m pytest")
    typer.echo("  agentflow serve\n")
    if auth == "api_key":
        typer.echo(f"Alice's API key, shown only now: {key}")
    typer.echo("README.md says how to talk to it.")
