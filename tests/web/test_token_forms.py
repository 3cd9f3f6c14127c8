"""What the token server reads of a request, and what it refuses to guess."""

import base64

import pytest
from fastapi import Request

from agentflow_server.token_server import ClientLogin, OAuthError
from agentflow_server.web.forms import MAX_FIELDS, parse_fields, read_client


def basic(client_id, secret):
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def request_with(*authorization):
    headers = [(b"authorization", value.encode()) for value in authorization]
    return Request({"type": "http", "headers": headers})


def test_fields_are_decoded_and_what_is_empty_counts_as_omitted():
    assert parse_fields(b"a=b%20c+d&e=%C3%A9&f=&g&h=1=2", "body") == {
        "a": "b c d", "e": "é", "h": "1=2",
    }  # fmt: skip


@pytest.mark.parametrize(
    "encoded",
    [b"a=1&a=1", b"a=1&%61=2", b"a=&a=1", b"a=%FF", b"a=\xff", b"a=%ED%A0%80",
     b"&".join(b"f%d=1" % number for number in range(MAX_FIELDS + 1))],
)  # fmt: skip
def test_r66_what_is_there_twice_or_is_no_form_is_an_invalid_request(encoded):
    with pytest.raises(OAuthError) as refused:
        parse_fields(encoded, "body")
    assert (refused.value.code, refused.value.status) == ("invalid_request", 400)


@pytest.mark.parametrize(
    ("authorization", "form", "expected"),
    [
        ([], {}, None),
        ([], {"client_id": "app"}, ClientLogin("app")),
        ([], {"client_id": "app", "client_secret": "s"}, ClientLogin("app", "s")),
        ([basic("app", "s")], {}, ClientLogin("app", "s")),
        ([basic("app", "")], {}, ClientLogin("app")),
        ([basic("app", "s")], {"client_id": "app"}, ClientLogin("app", "s")),
        ([basic("a%3Ab", "x+y%2B")], {}, ClientLogin("a:b", "x y+")),
        ([basic("app", "a:b")], {}, ClientLogin("app", "a:b")),
        # Swagger's dialog, when nothing is filled in.
        ([basic("", "")], {}, None),
        ([basic("", "")], {"client_id": "app"}, ClientLogin("app")),
    ],
)
def test_a_client_names_itself_in_the_header_or_in_the_form(authorization, form, expected):
    assert read_client(request_with(*authorization), form) == expected


@pytest.mark.parametrize(
    ("authorization", "form", "code"),
    [
        ([basic("app", "s")], {"client_secret": "s"}, "invalid_request"),
        ([basic("app", "s")], {"client_id": "other"}, "invalid_request"),
        ([basic("app", "s"), basic("app", "s")], {}, "invalid_request"),
        ([], {"client_secret": "s"}, "invalid_request"),
        (["Bearer x.y.z"], {}, "invalid_client"),
        (["Basic !"], {}, "invalid_client"),
        (["Basic"], {}, "invalid_client"),
        (["Basic " + base64.b64encode(b"app").decode()], {}, "invalid_client"),
        (["Basic " + base64.b64encode(b"\xff:s").decode()], {}, "invalid_client"),
        ([basic("", "s")], {}, "invalid_client"),
    ],
)
def test_r66_a_client_that_names_itself_twice_or_not_properly_is_refused(authorization, form, code):
    with pytest.raises(OAuthError) as refused:
        read_client(request_with(*authorization), form)
    assert refused.value.code == code
    assert refused.value.status == (401 if code == "invalid_client" else 400)
