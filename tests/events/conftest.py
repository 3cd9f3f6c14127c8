"""What the tests of the event buses share."""

import pytest

pytest.register_assert_rewrite("agentflow_server.testing.events")
