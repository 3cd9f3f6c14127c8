"""Keys are replaced as docs/operations/keys.md says, step by step."""

import json
import re
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agentflow_server.auth import remote_keys

PAGE = "docs/operations/keys.md"
AGENT = 'def app(messages, config):\n    return "here"\n'


@pytest.fixture
def operator(reader):
    """A reader with an agent; `steps` are what a section has him do."""
    reader.write("graph/react.py", AGENT)
    return reader


def make_token(reader, *options):
    return reader.type(f"agentflow token --user-id alice {' '.join(options)}").strip()


def test_a_shared_secret_is_replaced_as_written(operator, blocks_of):
    before, config, make_new, both, after = blocks_of(PAGE, "A shared secret")
    old = secrets.token_urlsafe(48)
    operator.write("agentflow.json", config.text)
    operator.write(".env", before.text.replace("OLD", old))
    operator.serve()
    old_token = make_token(operator)
    assert operator.ask(old_token) == 200

    new = operator.type(make_new.text).strip()
    operator.write(".env", both.text.replace("NEW", new).replace("OLD", old))
    operator.serve()
    new_token = make_token(operator)
    assert (operator.ask(old_token), operator.ask(new_token)) == (200, 200)

    operator.write(".env", after.text.replace("NEW", new))
    operator.serve()
    assert (operator.ask(old_token), operator.ask(new_token)) == (401, 200)


def test_a_key_pair_is_replaced_as_written(operator, blocks_of):
    make_old, before, make_new, both, try_it, after = blocks_of(PAGE, "Key pairs")
    operator.type(make_old.text)
    operator.write("agentflow.json", before.text)
    operator.serve()
    old_token = make_token(operator, "--key keys/2026-05/jwt-private.pem")
    assert operator.ask(old_token) == 200

    operator.type(make_new.text)
    operator.write("agentflow.json", both.text)
    operator.serve()
    new_token = operator.type(try_it.text).strip()
    assert (operator.ask(old_token), operator.ask(new_token)) == (200, 200)

    operator.write("agentflow.json", after.text)
    operator.serve()
    assert (operator.ask(old_token), operator.ask(new_token)) == (401, 200)


def test_from_a_secret_to_a_key_pair_it_goes_the_same_way(operator, blocks_of):
    make_pair = blocks_of(PAGE, "Key pairs")[2]
    operator.type(make_pair.text)
    operator.env["JWT_SECRET_KEY"] = secrets.token_urlsafe(48)
    operator.write("agentflow.json", '{"agent": "graph.react:app", "auth": "jwt"}')
    old_token = make_token(operator)
    pair = {"kid": "2026-11", "algorithm": "ES256"}
    keys = [
        pair | {"public_key_file": "keys/2026-11/jwt-public.pem"},
        {"algorithm": "HS256", "secret_env": "JWT_SECRET_KEY"},
    ]
    config = {"agent": "graph.react:app", "auth": {"method": "jwt", "keys": keys}}
    operator.write("agentflow.json", json.dumps(config))
    operator.serve()
    new_token = make_token(operator, "--key keys/2026-11/jwt-private.pem")
    assert (operator.ask(old_token), operator.ask(new_token)) == (200, 200)


class Publisher:
    """Signs tokens and publishes keys, at an address and as the content of a file."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.fetched = 0
        publisher = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.fetched += 1
                body = publisher.key_set().encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def make(self, kid: str) -> str:
        """A token signed with a new key, which is published."""
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())
        claims = {"sub": "alice", "exp": int(time.time()) + 600}
        return jwt.encode(claims, self.keys[kid], "ES256", headers={"kid": kid})

    def key_set(self) -> str:
        to_jwk = jwt.algorithms.ECAlgorithm.to_jwk
        found = [json.loads(to_jwk(key.public_key())) for key in self.keys.values()]
        names = [{"kid": kid, "use": "sig", "alg": "ES256"} for kid in self.keys]
        return json.dumps({"keys": [key | name for key, name in zip(found, names, strict=True)]})


@pytest.fixture
def publisher():
    publisher = Publisher()
    yield publisher
    publisher.close()


def test_with_a_key_set_at_an_address_nothing_is_to_be_done(operator, publisher):
    auth = {"method": "jwt", "jwks_url": publisher.url}
    operator.write("agentflow.json", json.dumps({"agent": "graph.react:app", "auth": auth}))
    old = publisher.make("2026-05")
    operator.serve()
    assert operator.ask(old) == 200
    assert publisher.fetched == 1

    new = publisher.make("2026-11")
    assert (operator.ask(new), operator.ask(old)) == (200, 200), "asked again, at once"
    assert publisher.fetched == 2
    early = publisher.make("2027-05")
    assert operator.ask(early) == 401, "but at most once in 30 s"
    assert publisher.fetched == 2

    leaked = old
    del publisher.keys["2026-05"]
    operator.serve()
    assert (operator.ask(leaked), operator.ask(new), operator.ask(early)) == (401, 200, 200)


def test_the_times_of_the_page_are_those_of_the_server(root):
    page = (root / PAGE).read_text(encoding="utf-8")
    (section,) = re.findall(r"^## A key set at an address\n(.*?)^## ", page, re.M | re.S)
    assert [float(text) for text in re.findall(r"\b(\d+)\b", section)] == [
        remote_keys.MIN_INTERVAL,
        remote_keys.TTL * remote_keys.REFRESH_AT / 60,
        remote_keys.TTL / 60,
        remote_keys.MAX_STALE / 3600,
    ]


def test_a_key_set_in_a_file_is_replaced_as_written(operator, publisher):
    auth = {"method": "jwt", "jwks_file": "keys.json"}
    operator.write("agentflow.json", json.dumps({"agent": "graph.react:app", "auth": auth}))
    old = publisher.make("2026-05")
    operator.write("keys.json", publisher.key_set())
    operator.serve()
    assert operator.ask(old) == 200

    new = publisher.make("2026-11")
    operator.write("keys.json", publisher.key_set())
    assert operator.ask(new) == 401, "it is read at start"
    operator.serve()
    assert (operator.ask(old), operator.ask(new)) == (200, 200)

    del publisher.keys["2026-05"]
    operator.write("keys.json", publisher.key_set())
    operator.serve()
    assert (operator.ask(old), operator.ask(new)) == (401, 200)
    assert publisher.fetched == 0


def test_what_has_leaked_is_refused(operator):
    operator.env["JWT_SECRET_KEY"] = secrets.token_urlsafe(48)
    operator.write("agentflow.json", '{"agent": "graph.react:app", "auth": ["jwt", "api_key"]}')
    leaked, good = make_token(operator, "--claim jti=t1"), make_token(operator, "--claim jti=t2")
    api_key = operator.type("agentflow api-keys create --user-id alice").strip()
    operator.serve()
    assert [operator.ask(credential) for credential in (leaked, good, api_key)] == [200] * 3

    operator.type(f"agentflow api-keys revoke {api_key}")
    assert operator.ask(api_key) == 401

    operator.type("agentflow revoke --token-id t1")
    operator.serve()  # a running server looks within a minute, one that starts at once
    assert (operator.ask(leaked), operator.ask(good)) == (401, 200)

    operator.type("agentflow revoke --user-id alice")
    operator.serve()
    assert operator.ask(good) == 401


def test_a_new_signing_key_alone_ends_every_old_token(operator):
    operator.write("agentflow.json", '{"agent": "graph.react:app", "auth": "jwt"}')
    operator.env["JWT_SECRET_KEY"] = secrets.token_urlsafe(48)
    forged = make_token(operator)
    operator.env["JWT_SECRET_KEY"] = secrets.token_urlsafe(48)
    operator.serve()
    assert operator.ask(forged) == 401


def test_the_audit_key_is_replaced_as_written(operator, blocks_of):
    note, put_aside, verify_old = blocks_of(PAGE, "The audit key")
    (config, *_) = blocks_of("docs/audit.md", "Audit log")
    operator.write("agentflow.json", config.text)
    operator.env["JWT_SECRET_KEY"] = secrets.token_urlsafe(48)
    old, new = secrets.token_urlsafe(48), secrets.token_urlsafe(48)
    operator.env["AGENTFLOW_AUDIT_KEY"] = old
    operator.serve()
    operator.ask("not a token")
    operator.stop()
    assert "None was changed" in operator.type(note.text)

    operator.type(put_aside.text)
    operator.env["AGENTFLOW_AUDIT_KEY"] = new
    operator.serve()
    operator.ask("not a token")
    operator.stop()
    assert "None was changed" in operator.type(note.text)
    assert "None was changed" in operator.type(verify_old.text, OLD_AUDIT_KEY=old)
    assert operator.attempt(verify_old.text, OLD_AUDIT_KEY=new).returncode == 1


def test_r80_r84_the_audit_log_is_as_its_page_says(operator, blocks_of, root):
    (config, *_) = blocks_of("docs/audit.md", "Audit log")
    (example,) = blocks_of("docs/audit.md", "A line")
    reading, verifying = (
        blocks_of("docs/audit.md", section)[0].text for section in ("Reading it", "Verifying it")
    )
    operator.write("agentflow.json", config.text)
    operator.env["JWT_SECRET_KEY"] = secrets.token_urlsafe(48)
    operator.serve()
    assert operator.ask(make_token(operator, "--claim jti=t1")) == 200
    assert operator.ask(make_token(operator)[:-5]) == 401
    operator.stop()
    operator.type("agentflow revoke --user-id bob")

    lines = [json.loads(line) for line in operator.type(reading).splitlines()]
    assert [(line["action"], line["result"]) for line in lines[:4]] == [
        ("authenticate", "success"),
        ("authorize", "success"),
        ("authenticate", "failure"),
        ("revoke", "success"),
    ]
    page = (root / "docs/audit.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| member \| \|\n\|---\|---\|\n((?:\|.*\n)+)", page)
    members = set(re.findall(r"`(\w+)`", "".join(r.split("|")[1] for r in table.splitlines())))
    assert set().union(*lines) | {"issuer", "key_id"} == members
    assert set(json.loads(example.text)) <= members

    assert "None was changed" in operator.type(verifying)
    operator.type("sed -i s/alice/carol/ logs/audit.log")
    broken = operator.attempt(verifying)
    assert broken.returncode == 1
    assert "seq 1: was changed" in broken.stderr
