"""The wheel is complete, and works away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import agentflow_server

pytestmark = pytest.mark.slow

BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=root, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> Sequence[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel in it.

    The dependencies are lent by the environment of the tests, so that nothing is downloaded; the
    path files in there, and with them the checkout, are not followed from here.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    lenders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "lent.pth").write_text("\n".join(sorted(lenders)), encoding="utf-8")
    commands = Path(sysconfig.get_path("scripts", "venv", paths))
    pip = [sys.executable, "-m", "pip", "--python", str(commands / "python"), "install"]
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    return commands


def _run(command: Sequence[str | Path], cwd: Path) -> str:
    """What `command` prints, without the help of this process's environment."""
    dropped = ("PYTHON", "COVERAGE", "AGENTFLOW", "JWT_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    result = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_every_file_of_the_package(contents: Any, files: Any) -> None:
    wanted = [name for name in files if name.startswith("agentflow_server/")]
    assert sorted(set(wanted) - set(contents)) == []


def test_the_wheel_carries_the_auth_backends_as_templates(contents: Any, files: Any) -> None:
    backends = [name for name in files if name.startswith("auth/")]
    assert backends
    assert {f"agentflow_server/templates/{name}" for name in backends} <= set(contents)


@pytest.mark.parametrize(
    "kind", [".sql", "/py.typed", "/agentflow.schema.json", "/licenses/LICENSE"]
)
def test_the_wheel_holds_what_is_not_python(contents: Any, kind: str) -> None:
    assert [name for name in contents if name.endswith(kind)]


def test_the_wheel_holds_the_template_of_a_project(contents: Any) -> None:
    assert [name for name in contents if name.startswith("agentflow_server/templates/project/")]


def test_the_wheel_installs_nothing_but_the_package(contents: Any) -> None:
    tops = {name.split("/")[0] for name in contents}
    version = agentflow_server.__version__
    assert tops == {"agentflow_server", f"agentflow_server-{version}.dist-info"}


def test_the_wheel_holds_no_leftovers(contents: Any) -> None:
    assert [name for name in contents if name.endswith((".pyc", ".db", ".env"))] == []


def test_the_installed_command_shows_its_help(installed: Path, tmp_path: Path) -> None:
    assert "serve" in _run([installed / "agentflow", "--help"], tmp_path)


def test_the_installed_module_is_a_command_too(installed: Path, tmp_path: Path) -> None:
    module = [installed / "python", "-m", "agentflow_server", "--help"]
    assert "serve" in _run(module, tmp_path)


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import agentflow_server; print(agentflow_server.__file__)"
    place = Path(_run([installed / "python", "-c", code], tmp_path).strip())
    assert place.is_relative_to(installed.parent)
