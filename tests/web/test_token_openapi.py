"""The OpenAPI document and `/docs` where the server logs users in."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

PUBLIC_URL = "http://127.0.0.1:8000"
OWN = ["/token", "/revoke", "/userinfo"]


@pytest.fixture
def document(project):
    def make(**config):
        config = {"auth": ..., "token_server": {}, "public_url": PUBLIC_URL, **config}
        return project.app(**config).openapi()

    return make


def test_the_dialog_logs_in_on_the_login_page(document):
    found = document()
    login = found["components"]["securitySchemes"]["login"]
    assert login == {
        "type": "oauth2",
        "flows": {
            "authorizationCode": {
                "authorizationUrl": f"{PUBLIC_URL}/authorize",
                "tokenUrl": f"{PUBLIC_URL}/token",
                "refreshUrl": f"{PUBLIC_URL}/token",
                "scopes": {},
            }
        },
    }
    assert {"login": []} in found["paths"]["/threads"]["get"]["security"]


def test_with_the_password_grant_it_asks_for_the_password_itself(document):
    found = document(token_server={"password_grant": True})
    flows = found["components"]["securitySchemes"]["login"]["flows"]
    assert list(flows) == ["password"]
    assert flows["password"]["tokenUrl"] == f"{PUBLIC_URL}/token"


def test_the_token_servers_forms_are_documented(document, project):
    found = document()
    assert set(OWN) <= set(found["paths"])
    body = found["paths"]["/token"]["post"]["requestBody"]["content"]
    schema = body["application/x-www-form-urlencoded"]["schema"]
    assert {"grant_type", "username", "totp", "client_id"} <= set(schema["properties"])
    assert "security" not in found["paths"]["/token"]["post"]
    assert found["paths"]["/userinfo"]["get"]["security"]
    without = project.app(auth="jwt").openapi()
    assert "login" not in without["components"]["securitySchemes"]
    assert not set(OWN) & set(without["paths"])


def test_below_another_application_the_dialog_finds_its_way(project):
    host = FastAPI()
    app = project.app(auth=..., token_server={"password_grant": True})
    host.mount("/agents", app)
    with TestClient(host) as client:
        found = client.get("/agents/openapi.json").json()
        page = client.get("/agents/docs").text
    flow = found["components"]["securitySchemes"]["login"]["flows"]["password"]
    assert (flow["tokenUrl"], flow["scopes"]) == ("/agents/token", {})
    assert "'/agents/docs/oauth2-redirect'" in page
    # What is served elsewhere is not touched.
    own = app.openapi()["components"]["securitySchemes"]["login"]["flows"]["password"]
    assert own["tokenUrl"] == "/token"


async def test_the_page_at_the_end_of_the_login_lets_nobody_frame_it(serve):
    client = await serve()
    page = await client.get("/docs/oauth2-redirect")
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
