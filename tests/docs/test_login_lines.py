"""What docs/login.md says about logging in works as printed."""

import json
import shutil

import pytest

PAGE = "docs/login.md"
ECHO = 'def app(messages, config):\n    return "echo " + messages[-1]["content"]\n'


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_from_nothing_to_a_login_and_on_with_a_new_key(reader, blocks_of):
    _, config, init, _, lines = blocks_of(PAGE, "From nothing to a login")
    reader.write("graph/react.py", ECHO)
    reader.write(config.path, config.text)
    password = reader.type(f"{init.text}echo $PASSWORD").strip()
    reader.serve()
    verified, thread = reader.type(lines.text, PASSWORD=password).split("}", 1)
    assert json.loads(verified + "}")["username"] == "alice"
    assert json.loads(thread)["status"] == "idle"
    rotate, now = blocks_of(PAGE, "Keys")
    reader.type(rotate.text)
    reader.type(now.text)
    # The keys that it has seen are good for half a minute more; the new one starts with it.
    reader.serve()
    assert '"valid":true' in reader.type(lines.text, PASSWORD=password)


def test_the_second_factor_comes_and_goes_as_printed(reader, blocks_of):
    _, config, init, _, _ = blocks_of(PAGE, "From nothing to a login")
    reader.write("graph/react.py", ECHO)
    reader.write(config.path, config.text)
    reader.type(init.text)
    give, take = blocks_of(PAGE, "The second factor")
    assert reader.type(give.text).startswith("otpauth://totp/")
    assert '"has_totp": true' in reader.type("agentflow users show alice --json")
    reader.type(take.text)
    assert '"has_totp": false' in reader.type("agentflow users show alice --json")
