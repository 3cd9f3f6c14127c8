"""The one door for everything a user plugs in."""

import functools
import uuid

import pytest

from agentflow_server.errors import ConfigError
from agentflow_server.importing import count_positional, is_async_callable, load


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        name = f"plug_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    return write


def test_an_attribute_is_found_also_inside_another(module):
    name = module("class Box:\n    inside = 7\n")
    assert load(f"{name}:Box.inside", setting="agent") == 7


@pytest.mark.parametrize(
    "path",
    ["", "a", "a:", ":b", "a.b", "a:b:c", "a b:c", "../a:b", "a/b:c", "a..b:c", "a:b()", "1a:b"],
)
def test_a_malformed_path_says_what_is_expected(path):
    with pytest.raises(ConfigError, match=r'agent: expected "package\.module:attribute"'):
        load(path, setting="agent")


def test_a_missing_module_is_named():
    with pytest.raises(ConfigError, match=r"auth\.path: there is no module 'no_such_module'"):
        load("no_such_module.sub:thing", setting="auth.path")


def test_a_missing_attribute_shows_what_there_is(module):
    name = module("alpha = 1\nbeta = 2\n_hidden = 3\n")
    with pytest.raises(ConfigError, match=r"has no 'gamma' \(it has alpha, beta\)"):
        load(f"{name}:gamma", setting="agent")


def test_a_module_that_wants_a_missing_one_shows_the_users_line(module):
    name = module("import not_installed_here\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_here"):
        load(f"{name}:app", setting="agent")


def test_what_the_users_module_raises_passes_through(module):
    name = module("raise RuntimeError('mine')\n")
    with pytest.raises(RuntimeError, match="mine"):
        load(f"{name}:app", setting="agent")


def test_positional_arguments_are_counted():
    class Form:
        def two(self, a, b, *, c=1): ...

        def any(self, *args): ...

    assert count_positional(Form().two) == 2
    assert count_positional(Form().any) == -1
    assert count_positional(lambda a, /, b=1: None) == 2


def test_async_callables_are_seen_behind_partials_and_objects():
    async def plain(a, b): ...

    class Callable:
        async def __call__(self): ...

    assert is_async_callable(plain)
    assert is_async_callable(functools.partial(functools.partial(plain, 1), 2))
    assert is_async_callable(Callable())
    assert not is_async_callable(lambda: None)
    assert not is_async_callable(functools.partial(print))
