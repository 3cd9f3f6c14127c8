"""What a page of an allowed origin may send and read, when nothing else is said."""

ORIGIN = {"Origin": "https://app.example"}


async def test_a_page_may_send_an_api_key_and_read_the_limits(serve):
    cors = {"allow_origins": ["https://app.example"]}
    client = await serve(auth="api_key", cors=cors, rate_limit={"per_address": "9/minute"})
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    allowed = await client.options("/threads", headers=ORIGIN | asked)
    assert allowed.status_code == 200
    assert "X-API-Key" in allowed.headers["access-control-allow-headers"]
    answer = await client.get("/threads", headers=ORIGIN)
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)
