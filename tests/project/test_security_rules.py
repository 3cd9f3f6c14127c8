"""Each rule of docs/security-rules.md has a test that bears its number; R88, R89, R90 and R93."""

import ast
import configparser
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

PAGE = "docs/security-rules.md"
DEMANDED = {*range(1, 62), 65, 76, *range(80, 94)}
OFFERED = {62, 63, 64, 66, 67, 68, 69, 73, 77, 78, 79}
"""Promised and tested as well: passwords, the token server, how soon a revocation holds, what a
WebSocket may do."""


def _read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def numbers(root: Path) -> list[int]:
    """The rules of the page, in its order."""
    return [int(number) for number in re.findall(r"^\| R(\d+) \|", _read(root, PAGE), re.M)]


def _numbers_in(name: str) -> set[int]:
    """Those that a name bears as parts of it: `test_r17_r18_the_header_is…` has two."""
    return {int(part[1:]) for part in name.split("_") if re.fullmatch(r"r\d+", part)}


def _named_tests(root: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
                "test_"
            ):
                yield path.relative_to(root).as_posix(), node.name


def test_the_page_has_every_rule_once_and_in_order(numbers: list[int]) -> None:
    assert numbers == sorted(DEMANDED | OFFERED)


def test_every_rule_has_a_test_that_bears_its_number(root: Path, numbers: list[int]) -> None:
    tested = {number for _, name in _named_tests(root) for number in _numbers_in(name)}
    assert [f"R{number}" for number in numbers if number not in tested] == []


def test_no_test_bears_a_number_that_is_no_rule(root: Path, numbers: list[int]) -> None:
    strangers = [
        f"{path} {name}"
        for path, name in _named_tests(root)
        if not _numbers_in(name) <= set(numbers)
    ]
    assert strangers == []


# R88 and R93: what holds for the whole code


SECRETIVE = re.compile(r"secret|signature|password|api_key|credentials|(^|_)(mac|code)$", re.I)


def _open_comparisons(tree: ast.AST) -> list[ast.Compare]:
    """`==` between two things of which one is secret; with a constant it tells nothing."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and all(map(_last_name, sides := [node.left, *node.comparators]))
        and any(SECRETIVE.search(_last_name(side)) for side in sides)
    ]


def _last_name(side: ast.expr) -> str:
    match side:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def test_r88_no_secret_is_compared_in_a_time_that_tells(product: Any) -> None:
    assert len(_open_comparisons(ast.parse("sent == key.secret_hash; password != known"))) == 2
    found = [
        f"{source.place(node)} {ast.unparse(node)}"
        for source in product
        for node in _open_comparisons(source.tree)
    ]
    assert found == []


JUDGES = ("token", "claim_rules", "claims", "jwt", "introspection", "api_key", "remote_keys",
          "revocation")  # fmt: skip


def test_r93_who_judges_a_credential_reads_the_clock_he_was_given(package: Any) -> None:
    """`time.time` is a default of a parameter, and is called nowhere."""
    wanted = {f"agentflow_server/auth/{name}.py" for name in JUDGES}
    judges = [source for source in package if source.name in wanted]
    assert {source.name for source in judges} == wanted
    calls = [
        f"{source.place(node)} {ast.unparse(node)}"
        for source in judges
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and re.match(r"(time|datetime|date)\.(time|monotonic|now|utcnow|today)", _name(node))
    ]
    assert calls == []


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


# R89: no version in which a known hole is open


FLOORS = {"pyjwt": "2.15.1", "starlette": "1.3.1", "cryptography": "50.0.0"}

FORMS = {"python-multipart": "0.0.34"}
"""An example's, as FastAPI reads forms with it; the server reads its own without."""

UNWANTED = {"python-jose", "jose"}
"""Nobody maintains it."""


@pytest.fixture(scope="module")
def declared(root: Path) -> Mapping[str, Requirement]:
    project = tomllib.loads(_read(root, "pyproject.toml"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(text) for texts in lists for text in texts]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@pytest.fixture(scope="module")
def pinned(root: Path) -> Mapping[str, set[Version]]:
    pins: dict[str, set[Version]] = {}
    for line in _read(root, "constraints.txt").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            pins.setdefault(canonicalize_name(requirement.name), set()).add(Version(pin.version))
    return pins


def test_r89_no_environment_has_a_version_below_the_floor(pinned: Any) -> None:
    for name, floor in {**FLOORS, **FORMS}.items():
        assert min(pinned[name]) >= Version(floor), name


@pytest.mark.parametrize("name", FLOORS)
def test_r89_no_user_may_install_a_version_below_the_floor(declared: Any, name: str) -> None:
    assert _lowest(declared[name].specifier) >= Version(FLOORS[name])


def _lowest(allowed: SpecifierSet) -> Version:
    return max(Version(part.version) for part in allowed if part.operator in {">=", "==", "~="})


def test_r89_nothing_brings_in_what_is_not_wanted(declared: Any, pinned: Any) -> None:
    assert UNWANTED.union(FORMS).isdisjoint(declared)
    assert UNWANTED.isdisjoint(pinned)


# R90: mutation testing takes too long for a test; what can be tested is that it could be repeated


def _mutmut_settings(root: Path) -> configparser.SectionProxy:
    (block,) = re.findall(r"^```ini\n(.*?)^```$", _read(root, PAGE), re.M | re.S)
    parser = configparser.ConfigParser()
    parser.read_string(block)
    return parser["mutmut"]


def test_r90_the_mutation_run_is_of_modules_and_tests_that_exist(root: Path) -> None:
    settings = _mutmut_settings(root)
    assert (root / settings["source_paths"]).is_dir()
    mutated = settings["only_mutate"].split()
    chosen = settings["pytest_add_cli_args_test_selection"].split()
    assert {"agentflow_server/auth/token.py", "agentflow_server/auth/jwt.py"} <= set(mutated)
    assert "tests/auth/test_jwt_token_syntax.py" in chosen
    assert [name for name in mutated + chosen if not (root / name).is_file()] == []


def test_r90_nineteen_of_twenty_mutants_of_the_verifier_are_noticed(root: Path) -> None:
    (found,) = re.findall(r"\(R90; (\d+\.\d) %\s+were noticed", _read(root, PAGE))
    assert 95 <= float(found) <= 100


def test_r90_the_tests_of_the_run_are_those_of_the_modules(root: Path) -> None:
    """A module that is mutated without a test that imports it would count as unnoticed."""
    settings = _mutmut_settings(root)
    texts = [_read(root, name) for name in settings["pytest_add_cli_args_test_selection"].split()]
    untested = [
        module
        for module in map(_as_module, settings["only_mutate"].split())
        if not any(re.search(rf"\b{re.escape(module)}\b", text) for text in texts)
    ]
    assert untested == []


def _as_module(name: str) -> str:
    return name.removesuffix(".py").replace("/", ".")
