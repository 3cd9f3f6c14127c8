"""What the OpenAPI document shows as answers is what the server answers."""

import pytest

from agentflow_server.models import Message, Run, Thread
from agentflow_server.web.identity import LocalUser, VerifiedToken
from agentflow_server.web.turns import TurnResult


@pytest.mark.parametrize("model", [Thread, Message, Run, TurnResult, VerifiedToken, LocalUser])
def test_an_answer_has_an_example_with_all_its_members(project, model):
    schema = project.app().openapi()["components"]["schemas"][model.__name__]
    (example,) = schema["examples"]
    assert model.model_validate_json(model.model_validate(example).model_dump_json())
    assert set(example) == set(model.model_fields)
