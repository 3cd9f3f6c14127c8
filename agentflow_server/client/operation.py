"""Turns steps into methods: of a Synchronous client they return results, of the other awaitables."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import update_wrapper
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from agentflow_server.client.drivers import AsyncDriver, SyncDriver
from agentflow_server.client.steps import Items, Steps

P = ParamSpec("P")
T = TypeVar("T")


class Synchronous:
    """A client whose methods return when they have a result."""

    driver: SyncDriver


class Asynchronous:
    """A client whose methods are awaited."""

    driver: AsyncDriver


class Operation(Generic[P, T]):
    """A method with one result, written as the steps to it."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._steps = steps

    @overload
    def __get__(self, client: Synchronous, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Asynchronous, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Synchronous | Asynchronous | None, owner: type) -> Any:
        return self._steps if client is None else _bind(self._steps, client, client.driver.run)


class Listing(Generic[P, T]):
    """A method with any number of results, written as the steps through them."""

    def __init__(self, items: Callable[Concatenate[Any, P], Items[T]]) -> None:
        self._items = items

    @overload
    def __get__(
        self, client: Synchronous, owner: type
    ) -> Callable[P, Generator[T, None, None]]: ...
    @overload
    def __get__(
        self, client: Asynchronous, owner: type
    ) -> Callable[P, AsyncGenerator[T, None]]: ...
    def __get__(self, client: Synchronous | Asynchronous | None, owner: type) -> Any:
        return self._items if client is None else _bind(self._items, client, client.driver.iterate)


def _bind(
    function: Callable[..., Any], client: Synchronous | Asynchronous, take: Callable[..., Any]
) -> Callable[..., Any]:
    bound = MethodType(function, client)

    def method(*args: Any, **kwargs: Any) -> Any:
        return take(bound(*args, **kwargs))

    return update_wrapper(method, bound)
