"""Whatever is sent: the right 4xx, quickly, never a 5xx, never an echo of the input."""

import asyncio
import json
import uuid
from contextlib import suppress

import pytest

MARK = "c4n4ry"
DEEP = b'{"content": "x", "metadata": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}"

BODIES = {
    "not json": b"{'content': '%s'}" % MARK.encode(),
    "cut off": b'{"content": "c4n4ry',
    "NaN": b'{"content": "c4n4ry", "metadata": {"a": NaN}}',
    "Infinity": b'{"content": "c4n4ry", "metadata": {"a": Infinity}}',
    "-Infinity": b'{"content": "c4n4ry", "metadata": {"a": -Infinity}}',
    "1e999": b'{"content": "c4n4ry", "metadata": {"a": 1e999}}',
    "huge integer": b'{"content": "c4n4ry", "metadata": {"a": ' + b"9" * 5000 + b"}}",
    "lone surrogate": b'{"content": "c4n4ry \\ud800"}',
    "NUL": b'{"content": "c4n4ry \\u0000"}',
    "duplicate member": b'{"content": "c4n4ry", "content": "two"}',
    "a surrogate in a name": b'{"content": "x", "metadata": {"c4n4ry \\udfff": 1}}',
    "NUL in a name": b'{"content": "x", "metadata": {"c4n4ry \\u0000": 1}}',
    "bad UTF-8": b'{"content": "c4n4ry \xff"}',
    "byte order mark": b'\xef\xbb\xbf{"content": "c4n4ry"}',
    "UTF-16": '{"content": "c4n4ry"}'.encode("utf-16"),
    "deep": DEEP,
    "deeper": b"[" * 100_000,
    "unknown field": b'{"content": "x", "user_id": "c4n4ry"}',
    "wrong type": b'{"content": {"text": "c4n4ry"}}',
    "a number": b"12345678",
    "trailing text": b'{"content": "c4n4ry"} c4n4ry',
}


@pytest.mark.parametrize("name", BODIES)
async def test_r36_a_body_that_is_not_as_agreed_is_a_422(serve, new_thread, name):
    client = await serve()
    url = f"/threads/{await new_thread(client)}/messages"
    answer = await client.post(
        url, content=BODIES[name], headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_request"
    assert MARK not in answer.text
    assert (await client.get(url)).json()["data"] == []


@pytest.mark.parametrize("name", BODIES)
async def test_r36_no_route_makes_a_5xx_of_it_or_repeats_it(serve, new_thread, name):
    client = await serve()
    url = f"/threads/{await new_thread(client)}"
    for method, path in (("POST", "/threads"), ("PATCH", url)):
        headers = {"Content-Type": "application/json"}
        answer = await client.request(method, path, content=BODIES[name], headers=headers)
        assert answer.status_code == 422
        assert MARK not in answer.text


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e999", "9" * 5000, "%ed%a0%80", "%00", "%ff%fe", "%5b" * 3000]
)
async def test_r36_nor_does_a_parameter(serve, value):
    client = await serve()
    metadata = f"%7b%22{MARK}%22:{value}%7d"
    for query in (f"limit={value}", f"cursor={value}{MARK}", f"metadata={metadata}", f"{value}=1"):
        answer = await client.get(f"/threads?{query}")
        assert answer.status_code == 422, query[:40]
        assert MARK not in answer.text


async def test_r36_json_that_only_looks_dangerous_is_accepted(serve, new_thread):
    client = await serve()
    url = f"/threads/{await new_thread(client)}/messages"
    body = {
        "content": "\\u0000 [[[[ 💬 \u2028",
        "metadata": {"n": 10**19, "f": 1e300, "deep": [[[]]]},
    }
    answer = await client.post(url, json=body)
    assert answer.status_code == 200
    asked = (await client.get(url)).json()["data"][0]
    assert (asked["content"], asked["metadata"]) == (body["content"], body["metadata"])


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_that_is_not_declared_as_json_is_a_415(serve, new_thread, media_type):
    client = await serve()
    url = f"/threads/{await new_thread(client)}/messages"
    headers = {"Content-Type": media_type} if media_type else {}
    answer = await client.post(url, content=b'{"content": "x"}', headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


async def test_r35_a_body_over_the_limit_is_a_413_declared_or_chunked(serve, new_thread):
    client = await serve(limits={"max_body_bytes": 1000})
    url = f"/threads/{await new_thread(client)}/messages"
    big = json.dumps({"content": "x" * 2000}).encode()
    headers = {"Content-Type": "application/json"}
    declared = await client.post(url, content=big, headers=headers)
    assert (declared.status_code, declared.json()["code"]) == (413, "body_too_large")

    async def chunks():
        for start in range(0, len(big), 100):
            yield big[start : start + 100]

    chunked = await client.post(url, content=chunks(), headers=headers)
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")


async def test_r35_a_megabyte_is_the_limit_unless_another_is_configured(serve, new_thread):
    client = await serve()
    url = f"/threads/{await new_thread(client)}/messages"
    headers = {"Content-Type": "application/json"}
    frame = b'{"content": "%s"}'
    fits = frame % (b"x" * (1_000_000 - len(frame) + 2))
    assert len(fits) == 1_000_000
    assert (await client.post(url, content=fits, headers=headers)).status_code == 200
    refused = await client.post(url, content=fits + b" ", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


async def test_a_body_that_never_comes_is_a_408(serve, exchange):
    client = await serve(limits={"body_timeout": 0.2})
    answer = await exchange(
        client,
        b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
    )
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_r34_nobody_waits_for_the_body_of_a_stranger(serve, exchange):
    client = await serve(auth="jwt")
    answer = await exchange(
        client,
        b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000\r\n\r\n{",
    )
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer.lower(), "and the connection is not kept for the rest"


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b"x" * 2_000_000])
async def test_r34_a_stranger_with_a_bad_body_is_a_401(serve, body):
    client = await serve(auth="jwt")
    answer = await client.post(
        "/threads", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 401


async def test_r37_a_cut_off_body_leaves_no_trace(serve, exchange, caplog):
    client = await serve()
    await exchange(
        client,
        b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
        seconds=0.1,
    )
    assert (await client.get("/ping")).status_code == 200
    assert "Traceback" not in caplog.text


POSTING = b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LEAVING = {
    "in the middle of its body": POSTING + b"Content-Length: 100\r\n\r\n{",
    "in the middle of a chunk": POSTING + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "before its answer": b"GET /threads HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("when", LEAVING)
async def test_r37_a_client_that_leaves_is_neither_a_500_nor_a_traceback(serve, caplog, when):
    caplog.set_level("INFO")
    client = await serve()
    _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(LEAVING[when])
    await writer.drain()
    writer.transport.abort()

    def statuses():
        records = [r for r in caplog.records if r.name == "agentflow_server.access"]
        return [record.status for record in records if record.path == "/threads"]

    async with asyncio.timeout(10):
        while not statuses():
            await client.get("/ping")
    assert all(status < 500 for status in statuses())
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


@pytest.mark.parametrize(
    "thread_id",
    [
        "abc123", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "x%0d%0aSet-Cookie:%20a=b",
        "{{7*7}}", "' OR 1=1 --", "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a1", "*", "%ff",
        "0190d5a28c4e7cc39a6f0d2f5e1b7a11", "{0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11}",
    ],
)  # fmt: skip
async def test_r42_an_id_that_cannot_exist_is_not_found(serve, new_thread, thread_id):
    client = await serve()
    good = f"/threads/{await new_thread(client)}"
    for path in (
        f"/threads/{thread_id}",
        f"/threads/{thread_id}/messages",
        f"/threads/{thread_id}/runs",
        f"{good}/runs/{thread_id}/events",
    ):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers
        assert "etc" not in answer.text
        assert "49" not in answer.text, "no template was filled in"
    for method in ("PATCH", "DELETE"):
        body = {"json": {"name": "x"}} if method == "PATCH" else {}
        answer = await client.request(method, f"/threads/{thread_id}", **body)
        assert answer.status_code in {404, 405}
    assert (await client.get(good)).status_code == 200


async def test_r42_no_header_repeats_what_was_sent(serve, exchange):
    client = await serve()
    for path, name in (("/threads/x%0d%0aX-Evil:%201", "X-Id"), ("/ping", "X-Request-Id")):
        for value in ("a\rX-Evil: 1", "a\tb", "{{7*7}}", "' OR 1=1 --", "../../etc/passwd"):
            request = (
                f"GET {path} HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\nConnection: close\r\n\r\n"
            )
            head = (await exchange(client, request.encode())).partition(b"\r\n\r\n")[0].lower()
            assert head.startswith((b"http/1.1 4", b"http/1.1 200"))
            assert b"evil" not in head
            assert value.encode().lower() not in head


@pytest.mark.parametrize("chosen", ["abc", "", 7, "../x", "0190d5a28c4e7cc39a6f0d2f5e1b7a11", None])
async def test_a_chosen_id_must_be_a_uuid(serve, chosen):
    client = await serve()
    answer = await client.post("/threads", json={"thread_id": chosen})
    assert answer.status_code == (200 if chosen is None else 422)


async def test_ids_are_the_same_in_capitals(serve, new_thread):
    client = await serve()
    chosen = str(uuid.uuid4()).upper()
    assert await new_thread(client, json={"thread_id": chosen}) == chosen.lower()
    assert (await client.get(f"/threads/{chosen}")).status_code == 200


async def test_r36_a_validation_error_says_which_field_and_never_what_was_in_it(serve, new_thread):
    client = await serve()
    url = f"/threads/{await new_thread(client)}/messages"
    answer = await client.post(url, json={"content": 5, "stream": MARK, "c4n4ry key!": 1})
    fields = {error["field"] for error in answer.json()["errors"]}
    assert "body.stream" in fields
    assert MARK not in answer.text


async def test_r16_huge_headers_are_refused(serve, exchange):
    client = await serve(auth="jwt")
    long_token = await client.get("/threads", headers={"Authorization": "Bearer " + "a" * 20_000})
    assert long_token.status_code == 401
    many = await client.get("/ping", headers={"X-Filler": "a" * 40_000})
    assert many.status_code == 431


async def test_r16_a_header_of_eight_megabytes_is_answered_or_cut_off_in_five_seconds(serve):
    client = await serve(auth="jwt")
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    request = b"GET /threads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
    answer = b""
    async with asyncio.timeout(5):
        with suppress(ConnectionError):
            writer.write(request + b"a" * 8_000_000 + b"\r\n\r\n")
            answer = await reader.read(12)
    writer.close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert (await client.get("/ping")).status_code == 200


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
           "FOO", "get", "QUERY", "PROPFIND", "LINK"]  # fmt: skip
OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]


@pytest.mark.parametrize("method", METHODS)
async def test_r43_other_methods_give_no_access(serve, as_user, new_thread, exchange, method):
    client = await serve(auth="jwt")
    alice = as_user()
    thread = f"/threads/{await new_thread(client, headers=alice)}"
    for path in ("/threads", thread, f"{thread}/messages"):
        line = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await exchange(client, line.encode())
        assert answer.startswith((b"HTTP/1.1 405", b"HTTP/1.1 400", b"HTTP/1.1 401")), path
        assert thread.encode() not in answer
    assert (await client.get(thread, headers=alice)).status_code == 200


@pytest.mark.parametrize("header", OVERRIDES)
async def test_r43_a_method_is_what_it_is(serve, as_user, new_thread, header):
    client = await serve(auth="jwt")
    alice = as_user()
    thread = f"/threads/{await new_thread(client, headers=alice)}"
    for method in METHODS:
        overridden = await client.get("/threads", headers={header: method})
        assert overridden.status_code == 401
    for method in ("GET", "POST"):
        deleting = {header: "DELETE", "Content-Type": "application/json", **alice}
        await client.request(method, f"{thread}?_method=DELETE", headers=deleting)
        await client.request(method, thread, headers=deleting, content=b'{"_method": "DELETE"}')
        assert (await client.get(thread, headers=alice)).status_code == 200


@pytest.mark.parametrize("size", [0, 1, 999])
async def test_r36_random_bytes_never_make_a_5xx(serve, size):
    client = await serve()
    body = bytes((n * 131 + 7) % 256 for n in range(size))
    for path in ("/threads", f"/threads/{uuid.uuid4()}/messages"):
        answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code < 500


async def test_a_misspelt_or_repeated_parameter_is_a_422(serve, new_thread):
    client = await serve()
    await new_thread(client)
    for query in ("stauts=busy", "limit=1&limit=2", "x%20y=1"):
        answer = await client.get(f"/threads?{query}")
        assert answer.status_code == 422, query
    assert (await client.post("/threads?thread_id=x")).status_code == 422
    assert "query.stauts" in (await client.get("/threads?stauts=busy")).json()["detail"]


async def test_a_field_is_named_without_the_names_of_types(serve, new_thread):
    client = await serve()
    url = f"/threads/{await new_thread(client)}/messages"
    errors = (await client.post(url, json={"content": 5})).json()["errors"]
    assert {error["field"] for error in errors} == {"body.content"}
