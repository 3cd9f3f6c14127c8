"""A project made by `agentflow init` starts, passes its test, and does so from the wheel too."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agentflow_server.cli.init import build_project, write_project

ALL = ["none", "jwt", "custom", "api_key", "oauth", "firebase", "database", "mfa"]
CHECKOUT = Path(__file__).resolve().parents[2]
START = "import asyncio, agentflow_server as s; asyncio.run(s.create_app().verify())"


@pytest.mark.slow
@pytest.mark.parametrize("auth", ALL)
def test_it_starts_and_passes_its_own_test(run_in, tmp_path, auth):
    write_project(tmp_path, build_project(auth, name="shop", key="k" * 43))
    run_in(tmp_path, "-c", START)
    report = run_in(tmp_path, "-m", "pytest", "-q", "-W", "error")
    assert ("2 passed" if auth == "none" else "4 passed") in report


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
@pytest.mark.parametrize("auth", ["jwt", "api_key"])
def test_the_wheel_makes_the_same_project(run_in, unpacked_wheel, tmp_path, auth):
    where = "import agentflow_server; print(agentflow_server.__file__)"
    assert run_in(tmp_path, "-c", where, package=unpacked_wheel).startswith(str(unpacked_wheel))
    init = ("-m", "agentflow_server", "init", "shop", "--auth", auth)
    run_in(tmp_path, *init, package=unpacked_wheel)
    report = run_in(tmp_path / "shop", "-m", "pytest", "-q", package=unpacked_wheel)
    assert "4 passed" in report


@pytest.mark.slow
def test_the_wheel_has_every_backend_and_no_package_named_auth(unpacked_wheel):
    packed = unpacked_wheel / "agentflow_server/templates/auth"
    for file in (CHECKOUT / "auth").glob("*.py"):
        assert (packed / file.name).read_text() == file.read_text()
    assert not (unpacked_wheel / "auth").exists()
    assert not (CHECKOUT / "agentflow_server/templates/auth").exists()
