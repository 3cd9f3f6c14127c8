"""R7: a backend that could not work stops the server, and says which line to look at."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server import interfaces
from agentflow_server.auth.alias import OLD_NAME, _AliasFinder, install_alias
from agentflow_server.auth.backend import load_backend, takes_request
from agentflow_server.auth.custom import CustomAuth
from agentflow_server.errors import AuthUnavailable, ConfigError

HEAD = "from agentflow_server.interfaces import BaseAuth\n"
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into a project's folder; gives its name. Imports are undone afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules, finders = set(sys.modules), list(sys.meta_path)

    def write(source: str) -> str:
        name = f"my_auth_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    yield write
    sys.meta_path[:] = finders
    for name in set(sys.modules) - modules:
        if name.startswith(("my_auth_", OLD_NAME)):
            del sys.modules[name]


def refusal(path: str, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError, match=r"^auth\.(path|options): ") as caught:
        load_backend(path, options)
    return caught.value


def test_a_class_is_constructed_with_its_options(write: Write) -> None:
    name = write(
        HEAD
        + "class Mine(BaseAuth):\n"
        + "    def __init__(self, realm='none'): self.realm = realm\n"
        + "    def authenticate(self, res, credential): return {'user_id': self.realm}\n"
    )
    assert load_backend(f"{name}:Mine", {"realm": "shop"}).realm == "shop"  # type: ignore[attr-defined]
    assert load_backend(f"{name}:Mine", {}).realm == "none"  # type: ignore[attr-defined]


def test_an_instance_is_used_as_it_is_and_takes_no_options(write: Write) -> None:
    name = write(
        HEAD
        + "class Mine(BaseAuth):\n"
        + "    def authenticate(self, res, credential): return {}\n"
        + "mine = Mine()\n"
    )
    assert load_backend(f"{name}:mine", {}) is sys.modules[name].mine
    assert "takes no options" in str(refusal(f"{name}:mine", realm="shop"))


def test_r7_a_missing_module_or_attribute_is_named(write: Write) -> None:
    name = write(HEAD)
    assert "no module 'nowhere'" in str(refusal("nowhere:Mine"))
    assert "has no 'Mine'" in str(refusal(f"{name}:Mine"))


def test_r7_an_error_while_importing_shows_the_users_line(write: Write) -> None:
    name = write(HEAD + "key = {}['missing']\n")
    error = refusal(f"{name}:Mine")
    assert str(error) == f"auth.path: importing '{name}:Mine' failed: KeyError: 'missing'"
    assert isinstance(error.__cause__, KeyError)
    frame = error.__cause__.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    assert frame is not None
    assert frame.tb_frame.f_code.co_filename.endswith(f"{name}.py")


def test_r7_a_module_the_users_module_lacks_is_his_import_error(write: Write) -> None:
    error = refusal(f"{write('import not_installed_anywhere')}:Mine")
    assert "ModuleNotFoundError: No module named 'not_installed_anywhere'" in str(error)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def Mine(res, credential): return {'user_id': 'alice'}", "a function"),
        ("class Mine:\n    def authenticate(self, res, credential): ...", "the class Mine"),
        ("class A:\n    def authenticate(self, res, credential): ...\nMine = A()", "a A"),
        ("Mine = None", "a NoneType"),
        ("Mine = 'auth'", "a str"),
    ],
)
def test_r7_what_is_no_base_auth_is_refused(write: Write, source: str, found: str) -> None:
    assert str(refusal(f"{write(source)}:Mine")).endswith(f"is {found}")


def test_r7_an_abstract_class_is_refused(write: Write) -> None:
    name = write(HEAD + "class Mine(BaseAuth):\n    def authentikate(self): ...\n")
    assert "does not implement authenticate" in str(refusal(f"{name}:Mine"))
    assert "does not implement authenticate" in str(refusal(f"{name}:BaseAuth"))


def test_r7_a_constructor_that_raises_is_the_cause(write: Write) -> None:
    name = write(
        HEAD
        + "class Mine(BaseAuth):\n"
        + "    def __init__(self): raise RuntimeError('no\\ndatabase')\n"
        + "    def authenticate(self, res, credential): ...\n"
    )
    error = refusal(f"{name}:Mine")
    assert str(error).endswith("failed: RuntimeError: no database")
    assert isinstance(error.__cause__, RuntimeError)
    assert "unexpected keyword argument 'x'" in str(refusal(f"{name}:Mine", x=1))


def test_r7_a_wrong_signature_is_refused(write: Write) -> None:
    for signature in ("self", "self, res", "self, a, b, c, d", "self, res, *, credential"):
        name = write(
            HEAD + f"class Mine(BaseAuth):\n    def authenticate({signature}): return {{}}\n"
        )
        backend = load_backend(f"{name}:Mine", {})
        with pytest.raises(ConfigError, match=r"\(res, credential\) or \(request, res, cred"):
            CustomAuth(backend)


def test_r7_authenticate_must_be_a_function(write: Write) -> None:
    name = write(HEAD + "class Mine(BaseAuth):\n    authenticate = 'no'\n")
    with pytest.raises(ConfigError, match="authenticate is not a function"):
        CustomAuth(load_backend(f"{name}:Mine", {}))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda res, credential: None, False),
        (lambda request, res, credential: None, True),
        (lambda request, res, credential=None: None, True),
        (lambda res, credential, cache=None: None, False),
        (lambda *arguments: None, False),
        (lambda request, res: None, False),
        (lambda anything, res, credential: None, True),
    ],
)
def test_the_form_is_told_by_the_signature(function: Callable[..., Any], expected: bool) -> None:
    assert takes_request(function) is expected


SEED = """
from agentflow_cli import BaseAuth
class Mine(BaseAuth):
    def authenticate(self, res, credential):
        return {"user_id": "alice"}
"""


def test_a_backend_written_for_the_old_package_runs_unchanged(write: Write) -> None:
    backend = load_backend(f"{write(SEED)}:Mine", {})
    assert isinstance(backend, interfaces.BaseAuth)
    assert sys.modules[OLD_NAME].__all__ == ["BaseAuth"]
    assert sys.modules[OLD_NAME].BaseAuth is interfaces.BaseAuth


def test_the_alias_has_nothing_but_base_auth(write: Write) -> None:
    install_alias()
    with pytest.raises(ImportError, match="cannot import name 'App'"):
        exec("from agentflow_cli import App", {})
    with pytest.raises(ModuleNotFoundError, match="not a package"):
        exec("import agentflow_cli.src", {})
    with pytest.raises(ModuleNotFoundError):
        exec("import agentflow_cli_tools", {})


def test_the_alias_is_installed_once(write: Write) -> None:
    install_alias()
    install_alias()
    assert sum(isinstance(finder, _AliasFinder) for finder in sys.meta_path) == 1


REAL = """
from abc import ABC, abstractmethod
class BaseAuth(ABC):
    @abstractmethod
    def authenticate(self, res, credential): ...
"""


def test_a_real_old_package_wins_and_its_base_auth_is_accepted(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "agentflow_cli.py").write_text(REAL, encoding="utf-8")
    name = write(SEED + "class Half(BaseAuth): ...\n")
    backend = load_backend(f"{name}:Mine", {})
    assert sys.modules[OLD_NAME].__file__ == str(tmp_path / "agentflow_cli.py")
    assert not isinstance(backend, interfaces.BaseAuth)
    assert CustomAuth(backend).credential_required is True
    assert "does not implement authenticate" in str(refusal(f"{name}:Half"))
    ours = write(
        HEAD + "class Mine(BaseAuth):\n    def authenticate(self, res, credential): return {}\n"
    )
    assert isinstance(load_backend(f"{ours}:Mine", {}), interfaces.BaseAuth)


def test_a_backend_may_say_which_credentials_are_its_own(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = write(
        HEAD + "class Shop(BaseAuth):\n"
        "    def authenticate(self, res, credential): return None\n"
        "    def recognises(self, credential):\n"
        "        return credential.startswith('shop_') or 1 / len(credential.strip('x')) < 0\n"
    )
    auth = CustomAuth(load_backend(f"{name}:Shop", {}))

    def recognised(text: str, scheme: str = "Bearer") -> bool:
        return auth.recognises(HTTPAuthorizationCredentials(scheme=scheme, credentials=text))

    assert recognised("shop_1")
    assert not recognised("other")
    assert not recognised("shop_1", "ApiKey")
    with pytest.raises(AuthUnavailable):
        recognised("xxxxxxxx")
    assert "ZeroDivisionError" in caplog.text
    assert "xxxxxxxx" not in caplog.text


def test_without_recognises_every_bearer_token_is_the_backends(write: Write) -> None:
    name = write(
        HEAD + "class Shop(BaseAuth):\n    def authenticate(self, res, credential): return None\n"
    )
    auth = CustomAuth(load_backend(f"{name}:Shop", {}))
    assert auth.recognises(HTTPAuthorizationCredentials(scheme="bearer", credentials="x"))


@pytest.mark.parametrize(
    "recognises",
    ["def recognises(self): pass", "async def recognises(self, text): pass", "recognises = 7"],
)
def test_r7_a_recognises_of_another_form_is_refused(write: Write, recognises: str) -> None:
    name = write(
        HEAD + "class Shop(BaseAuth):\n"
        "    def authenticate(self, res, credential): return None\n"
        f"    {recognises}\n"
    )
    backend = load_backend(f"{name}:Shop", {})
    with pytest.raises(ConfigError, match=r"^auth\.path: recognises must be"):
        CustomAuth(backend)
