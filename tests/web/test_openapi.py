"""The OpenAPI document and the page that shows it."""

import json

import pytest


@pytest.fixture
def document(project):
    return project.app(auth="jwt", public_url="https://api.example.com").openapi()


def test_every_secured_operation_names_the_scheme_and_no_public_one_does(document):
    assert document["components"]["securitySchemes"]["jwt"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            public = path == "/ping" or path.startswith("/health/")
            assert ("security" in operation) is not public, path


def test_mode_none_asks_for_no_credential(project):
    document = project.app().openapi()
    assert "securitySchemes" not in document["components"]
    assert all("security" not in o for p in document["paths"].values() for o in p.values())


def test_errors_are_documented_as_problems(document):
    send = document["paths"]["/threads/{thread_id}/messages"]["post"]
    assert {"200", "401", "404", "409", "413", "415", "422", "500", "503"} <= set(send["responses"])
    assert "application/problem+json" in send["responses"]["422"]["content"]
    assert "text/event-stream" in send["responses"]["200"]["content"]
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_public_url_is_the_server(document):
    assert document["servers"] == [{"url": "https://api.example.com"}]


def test_bodies_and_parameters_are_documented(document):
    send = document["paths"]["/threads/{thread_id}/messages"]["post"]
    assert send["requestBody"]["required"] is True
    names = {parameter["name"] for parameter in send["parameters"]}
    assert {"thread_id", "Idempotency-Key"} <= names
    assert document["components"]["schemas"]["SendMessage"]["properties"]["content"]["examples"]


async def test_r8_the_document_holds_no_secret(serve):
    client = await serve(auth="jwt")
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    assert "Zk3vJ9" not in answer.text


async def test_the_page_needs_nothing_from_elsewhere(serve):
    client = await serve()
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert asset in page.text
        found = await client.get(f"/docs/{asset}")
        assert found.status_code == 200
        assert len(found.content) > 100
    assert (await client.get("/docs/../secured.py")).status_code == 404
    assert (await client.get("/docs/main.py")).status_code == 404
