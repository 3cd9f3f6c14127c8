"""`from agentflow_cli import BaseAuth`, for backends that were written for AgentFlow's old server."""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

from agentflow_server.interfaces import BaseAuth

OLD_NAME = "agentflow_cli"


def install_alias() -> None:
    """Answer an import of `agentflow_cli` that nobody else answers. Doing it twice changes nothing.

    The finder is the last one asked, so a real package of that name always wins.
    """
    if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        sys.meta_path.append(_AliasFinder())


def accepted_bases() -> tuple[type, ...]:
    """Our BaseAuth, and the one of an installed `agentflow_cli` that the user's module imported."""
    old = getattr(sys.modules.get(OLD_NAME), "BaseAuth", None)
    if isinstance(old, type) and old is not BaseAuth:
        return (BaseAuth, old)
    return (BaseAuth,)


class _AliasFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != OLD_NAME:
            return None
        return spec_from_loader(fullname, _AliasLoader(), origin="agentflow_server")


class _AliasLoader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = "An alias: the public names of agentflow_server under the old name."
        vars(module)["__all__"] = ["BaseAuth"]
        vars(module)["BaseAuth"] = BaseAuth
