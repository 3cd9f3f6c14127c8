"""RFC 9728: how a client finds out where to get a token."""

ISSUER = {
    "method": "jwt", "issuer": "https://login.example.com/", "audience": "https://api.example.com",
    "secret_key": "${JWT_SECRET_KEY}",
}  # fmt: skip


async def test_r76_the_resource_comes_from_the_config_and_the_challenge_points_to_it(
    serve, monkeypatch
):
    monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    client = await serve(auth=ISSUER, public_url="https://api.example.com")
    url = "/.well-known/oauth-protected-resource"
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil"}
    answer = await client.get(url, headers=evil)
    assert answer.json() == {
        "resource": "https://api.example.com",
        "authorization_servers": ["https://login.example.com/"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["agents:read", "interrupts:answer:any", "runs:cancel", "runs:create",
                             "runs:read", "threads:read", "threads:write"],
    }  # fmt: skip
    refused = await client.get("/threads", headers=evil)
    metadata = f'resource_metadata="https://api.example.com{url}"'
    assert refused.headers["www-authenticate"] == f"Bearer {metadata}"
    bad = await client.get("/threads", headers={"Authorization": "Bearer x.y.z"})
    assert bad.headers["www-authenticate"] == f'Bearer error="invalid_token", {metadata}'


async def test_a_resource_with_a_path_has_its_metadata_under_that_path(serve, monkeypatch):
    monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    client = await serve(auth=ISSUER, public_url="https://example.com/agents")
    url = "/.well-known/oauth-protected-resource/agents"
    assert (await client.get(url)).json()["resource"] == "https://example.com/agents"
    refused = await client.get("/threads")
    assert f'resource_metadata="https://example.com{url}"' in refused.headers["www-authenticate"]
    assert (await client.get("/.well-known/oauth-protected-resource/x")).status_code == 404


async def test_without_an_issuer_there_is_nothing_to_find(serve):
    client = await serve(auth="jwt", public_url="https://api.example.com")
    assert (await client.get("/.well-known/oauth-protected-resource")).status_code == 404
    assert (await client.get("/threads")).headers["www-authenticate"] == "Bearer"
