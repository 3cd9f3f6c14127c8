"""The rules of docs/conventions.md that no linter knows."""

import ast
from typing import Any

import pytest

Function = ast.FunctionDef | ast.AsyncFunctionDef

EMPTY_NAMES = ("Service", "Manager", "Helper", "Util", "Handler", "Impl", "Schema")
DRAWERS = {"utils", "util", "core", "services", "common", "helpers", "misc", "base"}


def _functions(source: Any) -> list[Function]:
    return [node for node in ast.walk(source.tree) if isinstance(node, Function)]


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_no_module_is_longer_than_400_lines(product: Any) -> None:
    lengths = {source.name: len(source.text.splitlines()) for source in product}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_50_lines(product: Any) -> None:
    too_long = [
        f"{source.place(function)} {function.name}: {_length(function)} lines"
        for source in product
        for function in _functions(source)
        if _length(function) > 50
    ]
    assert too_long == []


def test_every_module_opens_by_saying_what_it_is_for(product: Any) -> None:
    silent = [source.name for source in product if not ast.get_docstring(source.tree)]
    assert silent == []


def test_no_class_hides_behind_an_empty_name(product: Any) -> None:
    empty = [
        f"{source.place(node)} {node.name}"
        for source in product
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(EMPTY_NAMES)
    ]
    assert empty == []


def test_no_module_is_a_drawer_for_everything(product: Any) -> None:
    drawers = [
        source.name
        for source in product
        if DRAWERS.intersection(source.name.removesuffix(".py").split("/"))
    ]
    assert drawers == []


def _imports(tree: ast.Module) -> list[tuple[ast.stmt, str]]:
    """Each imported name with the module it comes from: `time.sleep`, `requests`."""
    found: list[tuple[ast.stmt, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_nothing_blocks_the_event_loop(product: Any) -> None:
    blocking = [
        f"{source.place(node)} {name}"
        for source in product
        for node, name in _imports(source.tree)
        if name.split(".")[0] == "requests" or name == "time.sleep"
    ]
    blocking += [
        f"{source.place(node)} time.sleep"
        for source in product
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"
    ]
    assert blocking == []


def test_middleware_is_pure_asgi(product: Any) -> None:
    slow = [source.name for source in product if "BaseHTTP" + "Middleware" in source.text]
    assert slow == []


def _mentions_of_status(node: ast.AST) -> str | None:
    """What a module below `web` would say if it knew HTTP statuses."""
    match node:
        case ast.Name(id="HTTPException" | "HTTPStatus" as name):
            return name
        case ast.Attribute(attr="HTTPException" | "HTTPStatus" as name):
            return name
        case ast.alias(name="HTTPException" | "HTTPStatus" | "status" as name):
            return name
        case ast.keyword(arg="status_code"):
            return "status_code"
        case _:
            return None


def _is_below_web(name: str) -> bool:
    """`auth/custom` and the suite for backends meet the HTTPException that a backend may raise."""
    above = ("web/", "cli/", "app.py", "templates/", "auth/custom.py", "testing/auth.py")
    return not name.removeprefix("agentflow_server/").startswith(above)


def test_nothing_below_web_knows_a_status(package: Any) -> None:
    mentions = [
        f"{source.name}:{getattr(node, 'lineno', '?')} {mention}"
        for source in package
        if _is_below_web(source.name)
        for node in ast.walk(source.tree)
        if (mention := _mentions_of_status(node))
    ]
    assert mentions == []


def _errors_sent(node: ast.AST) -> list[ast.expr]:
    """The literal error statuses that `node` would answer with."""
    match node:
        case ast.keyword(arg="status_code" | "status", value=value):
            values = [value]
        case ast.Dict(keys=keys, values=members):
            values = [
                value
                for key, value in zip(keys, members, strict=True)
                if isinstance(key, ast.Constant) and key.value in ("status", "status_code")
            ]
        case ast.Call(func=ast.Name(id="HTTPException"), args=[first, *_]):
            values = [first]
        case _:
            return []
    return [
        value
        for value in values
        if isinstance(value, ast.Constant) and isinstance(value.value, int) and value.value >= 400
    ]


def test_error_statuses_stand_in_one_table(package: Any) -> None:
    strays = [
        f"{source.place(value)} {ast.unparse(value)}"
        for source in package
        if source.name.startswith("agentflow_server/web/")
        and source.name != "agentflow_server/web/errors.py"
        for node in ast.walk(source.tree)
        for value in _errors_sent(node)
    ]
    assert strays == []


def _asserts(function: Function) -> bool:
    for node in ast.walk(function):
        name = getattr(node, "attr", None) or getattr(node, "id", None) or ""
        if isinstance(node, ast.Assert) or name.startswith(("assert", "check", "expect")):
            return True
        if isinstance(node, ast.Attribute) and name in {"raises", "warns", "fail"}:
            return True
    return False


def test_every_test_asserts_something(tests: Any) -> None:
    empty = [
        f"{source.place(function)} {function.name}"
        for source in tests
        for function in _functions(source)
        if function.name.startswith("test_") and not _asserts(function)
    ]
    assert empty == []


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "X" * 3])
def test_nothing_is_left_for_later(product: Any, word: str) -> None:
    left = [source.name for source in product if word in source.text.split()]
    assert left == []
