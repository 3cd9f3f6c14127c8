"""Lets a plain function ask a human: `answer = await ask(config, {...})`."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from agentflow_server.adapters.shapes import digest, json_copy
from agentflow_server.models import Interrupt, JsonObject


class Asked(BaseException):
    """Stops the function until there is an answer: no `except Exception` of its author's may."""


class Questions:
    """What one function asks while it runs once, and what it was answered before."""

    def __init__(self, answers: Sequence[Mapping[str, Any]]) -> None:
        self._answers = {key: value for given in answers for key, value in given.items()}
        self._number = 0
        self.open: Interrupt | None = None

    def ask(self, value: Any) -> Any:
        if self.open is not None:
            raise Asked
        shown = json_copy(value, "the question")
        self._number += 1
        interrupt_id = f"{self._number}-{digest(shown)}"
        if interrupt_id in self._answers:
            return self._answers[interrupt_id]
        self.open = Interrupt(interrupt_id=interrupt_id, value=shown)
        raise Asked

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of the config asks the same questions."""
        return self


class AskingConfig(dict[str, Any]):
    """The config of a function agent, which knows what the function may ask."""

    def __init__(self, config: JsonObject, answers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(config)
        self.questions = Questions(answers)


async def ask(config: Mapping[str, Any], value: Any) -> Any:
    """Ask a human, and return his answer; `value` is JSON and says what is asked.

    The function stops here. When there is an answer, it runs again from its beginning with the
    same messages, and this call returns the answer: answers belong to questions by their order.
    A question that is not the same as before is asked anew, so nobody ever seems to have agreed
    to what he did not see.

    Raises TypeError unless `config` is the one that the agent was given.
    """
    return ask_sync(config, value)


def ask_sync(config: Mapping[str, Any], value: Any) -> Any:
    """The same for `def` agents."""
    if not isinstance(config, AskingConfig):
        raise TypeError(
            "expected the config that the agent was given, found "
            f"{type(config).__name__}: pass that object itself, not a copy "
            "(a graph asks with its framework's own interrupt)"
        )
    return config.questions.ask(value)
