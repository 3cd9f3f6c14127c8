"""What the README and the documentation say works as they say it."""

import json
import re
import shlex
import shutil

import pytest
import typer

from agentflow_server import create_app
from agentflow_server.app import SECURED
from agentflow_server.cli import app as command_line
from agentflow_server.models import EventType
from agentflow_server.web import errors as web_errors
from agentflow_server.web.scopes import SCOPES

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def block_with(blocks, text, language="bash"):
    return next(block for block in blocks if text in block.text and block.language == language)


def write(reader, block, path=None):
    reader.write(path or block.path, block.text)


@needs_curl
def test_the_first_sixty_seconds_work_as_printed(reader, readme):
    write(reader, next(block for block in readme if block.path == "graph/react.py"))
    write(reader, next(block for block in readme if block.path == "agentflow.json"))
    reader.serve()
    created = block_with(readme, "curl -X POST http://127.0.0.1:8000/threads\n")
    assert json.loads(reader.type(created.text))["status"] == "idle"
    answer = json.loads(reader.type(block_with(readme, "THREAD=").text))
    assert answer["message"]["content"] == "stranger, you said: Hello"


@needs_curl
def test_the_jwt_lines_work_as_printed(reader, readme):
    write(reader, next(block for block in readme if block.path == "graph/react.py"))
    write(reader, block_with(readme, '"auth": "jwt"', "json"), "agentflow.json")
    make_secret, use_token = block_with(readme, "agentflow secret").text.split("\n", 1)
    reader.type(make_secret)
    reader.serve()
    assert json.loads(reader.type(use_token)) == {"data": [], "next_cursor": None}


@needs_curl
def test_the_lines_about_api_keys_work_as_printed(reader, readme, blocks_of):
    write(reader, next(block for block in readme if block.path == "graph/react.py"))
    config, lines = blocks_of("docs/authentication.md", "API keys")
    write(reader, config, "agentflow.json")
    reader.env["JWT_SECRET_KEY"] = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
    reader.serve()
    listed, table = reader.type(lines.text).split("\n", 1)[0].split("}", 1)
    assert json.loads(listed + "}") == {"data": [], "next_cursor": None}
    assert table.startswith("KEY ID")


def test_the_lines_about_revocation_work_as_printed(reader, blocks_of):
    reader.write("agentflow.json", '{"agent": "graph.react:app", "auth": "api_key"}')
    (lines,) = blocks_of("docs/authentication.md", "Revocation")
    reader.type("agentflow api-keys create --user-id alice")
    reader.type(lines.text)
    assert "revoked" in reader.type("agentflow api-keys list")


@needs_curl
def test_the_custom_class_and_the_agent_that_uses_its_claims_work_as_printed(reader, readme):
    write(reader, next(block for block in readme if block.path == "auth/custom.py"))
    write(reader, block_with(readme, 'config.get("roles", [])', "python"), "graph/react.py")
    config = {
        "agent": "graph.react:app",
        "auth": {"method": "custom", "path": "auth.custom:MyAuthBackend"},
    }
    reader.write("agentflow.json", json.dumps(config))
    reader.serve()
    line = (
        'H="Authorization: Bearer key-of-alice-7f3d"; U=http://127.0.0.1:8000/threads; '
        'T=$(curl -s -X POST $U -H "$H" | python3 -c \'import json,sys; '
        'print(json.load(sys.stdin)["thread_id"])\'); '
        'curl -s $U/$T/messages -H "$H" -H \'Content-Type: application/json\' -d \'{"content": "x"}\''
    )
    assert json.loads(reader.type(line))["message"]["content"] == "At your service, alice."


BACKEND = """
from agentflow_server import BaseAuth

class Backend(BaseAuth):
    def authenticate(self, res, credential):
        return None

def decide(principal, action, resource):
    return True

def app(messages, config):
    return "here"
"""


PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
"""


ADDRESSES = {
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "DATABASE_URL": "postgresql://agentflow:x@127.0.0.1/agentflow",
    "NIGHTLY_SECRET": "q8Zr2Lk5Vw9Xc3Bn7Tm1Hd6Gf4Js0PaYe",
}
"""Nothing is connected to."""


@pytest.fixture
def make_real(tmp_path, monkeypatch):
    """Write an example down so that what it names exists: modules, files and variables."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "named_in_the_docs.py").write_text(BACKEND)
    (tmp_path / ".env").write_text("JWT_SECRET_KEY=Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6\n")

    def make_real(text):
        for variable in re.findall(r"\$\{(\w+)\}", text):
            value = ADDRESSES.get(variable, f"value of {variable}")
            monkeypatch.setenv(variable, value)
        for name in re.findall(r'"public_key_file": "([^"]+)"', text):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(PUBLIC_KEY)
        path = tmp_path / "agentflow.json"
        path.write_text(json.dumps(with_our_modules(json.loads(text))))
        return path

    return make_real


def with_our_modules(config):
    match config:
        case {"agent": str()}:
            config["agent"] = "named_in_the_docs:app"
        case {"agents": dict(agents)}:
            config["agents"] = dict.fromkeys(agents, "named_in_the_docs:app")
    if isinstance(config.get("authorization"), str):
        config["authorization"] = "named_in_the_docs:decide"
    auth = config.get("auth")
    methods = auth if isinstance(auth, list) else [auth]
    for method in methods:
        if isinstance(method, dict) and "path" in method:
            method["path"] = "named_in_the_docs:Backend"
    return config


def is_config(block):
    return block.language == "json" and re.search(r'"agents?":\s*["{].*:\w+"', block.text)


def test_every_example_of_a_config_can_be_served(pages, make_real):
    seen = 0
    for block in filter(is_config, pages):
        if '"keys"' in block.text and block.page == "keys.md":
            continue  # its files are made by its own test
        create_app(make_real(block.text))
        seen += 1
    assert seen >= 20


def test_every_block_of_python_and_json_can_be_read(pages):
    for block in pages:
        if block.language == "python":
            compile(block.text, block.page, "exec")
        elif block.language == "json":
            json.loads(block.text)
    assert len(pages) > 60


def anchors(text):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere(root, texts):
    for name, text in texts.items():
        page = root / name
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), f"{name}: {target}"
            if anchor:
                assert anchor in anchors(file.read_text("utf-8")), f"{name}: {target}"


def command_lines(texts, pages):
    for name, text in texts.items():
        for line in re.findall(r"`(agentflow [^`]+)`", text):
            yield name, line
    for block in pages:
        if block.language == "bash":
            for line in re.findall(r"(?<![\w./-])agentflow [a-z-][^\n|;)]*", block.text):
                yield block.page, line


def test_every_command_and_option_in_the_documentation_exists(texts, pages):
    seen = set()
    for page, line in command_lines(texts, pages):
        command, path = typer.main.get_command(command_line), []
        for word in shlex.split(line.replace("…", ""))[1:]:
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
                path.append(word)
                seen.add(" ".join(path))
            elif word.startswith("-") and word != "-":
                known = {option for parameter in command.params for option in parameter.opts}
                assert word.partition("=")[0] in known, f"{page}: {line}"
            else:
                works_alone = getattr(command, "invoke_without_command", True)
                assert works_alone, f"{page}: {line}"
    every = set(find_commands(typer.main.get_command(command_line)))
    assert seen >= every, sorted(every - seen)


def find_commands(command, path=""):
    for name, inner in getattr(command, "commands", {}).items():
        below = list(find_commands(inner, f"{path}{name} "))
        yield from below or [f"{path}{name}"]


def test_every_event_and_every_error_code_is_documented(root, texts):
    for name in EventType.__args__:
        assert f"`{name}`" in texts["docs/api.md"], name
    rows = [line for line in texts["docs/errors.md"].splitlines() if line.startswith("| ")]
    known = {
        (row.split("|")[1].strip(), code) for row in rows for code in re.findall(r"`(\w+)`", row)
    }
    for error, status in web_errors.STATUS.items():
        if error.code not in {"internal_error", "conflict", "run_failed"}:
            assert (str(status), error.code) in known, error.code
    answered = [
        answer
        for file in root.glob("agentflow_server/**/*.py")
        for answer in re.findall(r'\bproblem\(\s*(\d{3}), "(\w+)"', file.read_text("utf-8"))
    ]
    assert len(answered) > 3
    assert [answer for answer in answered if answer not in known] == []


def test_every_config_key_is_documented(root, texts):
    schema = json.loads((root / "agentflow_server/config/agentflow.schema.json").read_text())
    keys = set(schema["properties"]) - {"$schema"}
    for section in ("limits", "cors", "runs", "rate_limit", "observability"):
        reference = json.dumps(schema["properties"][section])
        name = re.search(r"#/\$defs/(\w+)", reference)[1]
        keys |= set(schema["$defs"][name]["properties"])
    assert len(keys) > 20
    page = texts["docs/configuration.md"]
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_every_route_is_documented(texts):
    for router in SECURED:
        for route in router.routes:
            assert route.path in texts["docs/api.md"], route.path


def test_the_table_of_scopes_is_that_of_the_server(texts):
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \| `(\S+)` \|", texts["docs/authorization.md"], re.M)
    assert {(method, path): scope for method, path, scope in rows} == SCOPES


def test_every_reason_for_a_refusal_is_explained(root, texts):
    found = {"bad_exp", "bad_iat", "bad_nbf"}
    for file in root.glob("agentflow_server/**/*.py"):
        found |= set(re.findall(r'\breason=(?:\(\s*)?"(\w+)"', file.read_text("utf-8")))
        for one, other in re.findall(
            r'reason="(\w+)" if \w+ else "(\w+)"', file.read_text("utf-8")
        ):
            found |= {one, other}
    explained = set(re.findall(r"`(\w+)`", texts["docs/audit.md"]))
    assert len(found) > 30
    assert sorted(found - explained) == []


def test_r91_security_md_names_rules_that_exist(texts):
    known = set(re.findall(r"^\| (R\d+) \|", texts["docs/security-rules.md"], re.M))
    assert set(re.findall(r"\bR\d+\b", texts["SECURITY.md"])) <= known
    for heading in ("Threat model", "What is not defended", "OWASP ASVS 5.0"):
        assert f"# {heading}\n" in texts["SECURITY.md"]


def test_the_rule_that_the_command_names_is_on_the_page(root, texts):
    known = set(re.findall(r"^\| (R\d+) \|", texts["docs/security-rules.md"], re.M))
    named = set(re.findall(r"\bR\d+\b", (root / "agentflow_server/auth/explain.py").read_text()))
    assert named
    assert named <= known
