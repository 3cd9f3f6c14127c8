"""Whatever is sent: the right 4xx, quickly, never a 5xx, never an echo of the input."""

import json
import uuid

import pytest

MARK = "c4n4ry"
DEEP = b'{"content": "x", "metadata": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}"

BODIES = {
    "not json": b"{'content': '%s'}" % MARK.encode(),
    "cut off": b'{"content": "c4n4ry',
    "NaN": b'{"content": "c4n4ry", "metadata": {"a": NaN}}',
    "Infinity": b'{"content": "c4n4ry", "metadata": {"a": -Infinity}}',
    "1e999": b'{"content": "c4n4ry", "metadata": {"a": 1e999}}',
    "huge integer": b'{"content": "c4n4ry", "metadata": {"a": ' + b"9" * 5000 + b"}}",
    "lone surrogate": b'{"content": "c4n4ry \\ud800"}',
    "NUL": b'{"content": "c4n4ry \\u0000"}',
    "duplicate member": b'{"content": "c4n4ry", "content": "two"}',
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
async def test_a_body_that_is_not_as_agreed_is_a_422(serve, new_thread, name):
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


async def test_json_that_only_looks_dangerous_is_accepted(serve, new_thread):
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


@pytest.mark.parametrize(
    "thread_id",
    [
        "abc123", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "x%0d%0aSet-Cookie:%20a=b",
        "{{7*7}}", "' OR 1=1 --", "0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a1", "*", "%ff",
        "0190d5a28c4e7cc39a6f0d2f5e1b7a11", "{0190d5a2-8c4e-7cc3-9a6f-0d2f5e1b7a11}",
    ],
)  # fmt: skip
async def test_r42_an_id_that_cannot_exist_is_not_found(serve, thread_id):
    client = await serve()
    for path in (f"/threads/{thread_id}", f"/threads/{thread_id}/messages"):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers
        assert "etc" not in answer.text


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


async def test_a_validation_error_says_which_field_and_never_what_was_in_it(serve, new_thread):
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
    request = b"GET /threads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
    answer = await exchange(client, request + b"a" * 8_000_000 + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_r43_other_methods_give_no_access(serve, as_user, exchange):
    client = await serve(auth="jwt")
    for method in ("HEAD", "TRACE", "PUT", "CONNECT", "FOO"):
        line = f"{method} /threads HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await exchange(client, line.encode())
        assert answer.startswith((b"HTTP/1.1 405", b"HTTP/1.1 400", b"HTTP/1.1 401")), method
    overridden = await client.get("/threads", headers={"X-HTTP-Method-Override": "POST"})
    assert overridden.status_code == 401


@pytest.mark.parametrize("size", [0, 1, 999])
async def test_random_bytes_never_make_a_5xx(serve, size):
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
