"""A request goes to the address that was checked, and takes no longer than it may."""

import ssl
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import pytest

from agentflow_server.webhooks.courier import Courier, PostFailed

HEADERS = {"webhook-id": "1"}
PUBLIC = ["93.184.216.34", "2606:4700::1111"]


class Names:
    """A name server whose answers change from one question to the next."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self._answers.pop(0)


class Wire(httpx2.AsyncBaseTransport):
    """Sees what would be sent to a public address; `unreachable` ones refuse."""

    def __init__(self, *unreachable: str) -> None:
        self._unreachable = unreachable
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host in self._unreachable:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(200)


def make(names: Names, wire: Wire | None = None, **changes: Any) -> Courier:
    values: dict[str, Any] = {"timeout": 10.0, "allow_private": False}
    return Courier(resolve=names, transport=wire, **values | changes)


async def test_a_name_that_is_rebound_gains_nothing() -> None:
    names, wire = Names(PUBLIC, ["127.0.0.1"]), Wire()
    courier = make(names, wire)
    await courier.post("https://hooks.example.com/a?b", HEADERS, b"{}")
    assert [request.url.host for request in wire.requests] == PUBLIC[:1]
    assert names.asked == [("hooks.example.com", 443)]
    with pytest.raises(PostFailed, match="a private address") as caught:
        await courier.post("https://hooks.example.com/a?b", HEADERS, b"{}")
    assert caught.value.is_final
    assert len(wire.requests) == 1


async def test_the_receiver_is_named_although_its_address_is_asked() -> None:
    wire = Wire()
    await make(Names(PUBLIC), wire).post("https://hooks.example.com:8443/a?b", HEADERS, b"{}")
    (request,) = wire.requests
    assert str(request.url) == "https://93.184.216.34:8443/a?b"
    assert request.headers["host"] == "hooks.example.com:8443"
    assert request.extensions["sni_hostname"] == "hooks.example.com"
    assert request.headers.get_list("webhook-id") == ["1"]


@pytest.mark.parametrize("bad", ["169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_one_bad_address_among_good_ones_is_enough(bad: str) -> None:
    wire = Wire()
    with pytest.raises(PostFailed) as caught:
        await make(Names([*PUBLIC, bad]), wire).post("https://a.example.com/", HEADERS, b"")
    assert caught.value.is_final
    assert not wire.requests


async def test_the_next_address_is_asked_when_one_cannot_be_reached() -> None:
    wire = Wire(PUBLIC[0])
    answer = await make(Names(PUBLIC), wire).post("https://a.example.com/", HEADERS, b"")
    assert answer.status == 200
    assert [request.url.host for request in wire.requests] == PUBLIC
    lost = Wire(*PUBLIC)
    with pytest.raises(PostFailed, match="ConnectError") as caught:
        await make(Names(PUBLIC), lost).post("https://a.example.com/", HEADERS, b"")
    assert not caught.value.is_final


async def test_a_host_without_an_address_may_have_one_later() -> None:
    with pytest.raises(PostFailed) as caught:
        await make(Names([]), Wire()).post("https://a.example.com/", HEADERS, b"")
    assert not caught.value.is_final
    system = Courier(timeout=10.0, allow_private=False)
    with pytest.raises(PostFailed) as caught:
        await system.post("https://no-such-host.invalid/", HEADERS, b"")
    assert not caught.value.is_final


async def test_http_is_for_private_addresses_alone() -> None:
    wire = Wire()
    courier = make(Names(PUBLIC, ["10.0.0.1"]), wire, allow_private=True)
    with pytest.raises(PostFailed, match="http") as caught:
        await courier.post("http://a.example.com/", HEADERS, b"")
    assert caught.value.is_final
    assert (await courier.post("http://a.example.com/", HEADERS, b"")).status == 200
    assert len(wire.requests) == 1


async def test_the_system_is_asked_for_names(listen: Callable[..., Any]) -> None:
    receiver = await listen()
    courier = Courier(timeout=10.0, allow_private=True)
    answer = await courier.post(receiver.url("/a?b=c", host="localhost"), HEADERS, b"{}")
    await courier.close()
    (received,) = receiver.received
    assert (answer.status, received.path, received.body) == (200, "/a?b=c", b"{}")
    assert received.headers["host"] == f"localhost:{receiver.port}"
    assert received.headers["content-type"] == "application/json"


async def test_a_receiver_proves_the_name_that_was_asked_for(
    listen: Callable[..., Any], certified: Callable[[str], ssl.SSLContext]
) -> None:
    receiver = await listen(context=certified("hooks.example.com"))
    names = Names(["127.0.0.1"], ["127.0.0.1"])
    courier = make(names, allow_private=True)
    url = receiver.url(host="hooks.example.com", scheme="https")
    assert (await courier.post(url, HEADERS, b"{}")).status == 200
    with pytest.raises(PostFailed, match="Hostname mismatch"):
        await courier.post(url.replace("hooks.", "other."), HEADERS, b"{}")
    await courier.close()
    assert receiver.names == ["hooks.example.com", "other.example.com"]
    assert len(receiver.received) == 1


async def test_an_address_proves_itself_as_well(
    listen: Callable[..., Any], certified: Callable[[str], ssl.SSLContext]
) -> None:
    receiver = await listen(context=certified("127.0.0.1"))
    courier = Courier(timeout=10.0, allow_private=True)
    assert (await courier.post(receiver.url(scheme="https"), HEADERS, b"{}")).status == 200
    await courier.close()


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    listen: Callable[..., Any],
    certified: Callable[[str], ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = await listen(context=certified("127.0.0.1"))
    monkeypatch.delenv("SSL_CERT_FILE")
    courier = Courier(timeout=10.0, allow_private=True)
    with pytest.raises(PostFailed, match=r"(?i)certificate"):
        await courier.post(receiver.url(scheme="https"), HEADERS, b"{}")
    await courier.close()
    assert not receiver.received


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    listen: Callable[..., Any], reply: Any, status: int
) -> None:
    elsewhere = await listen()
    receiver = await listen(reply.answer(status, f"Location: {elsewhere.url()}"))
    courier = Courier(timeout=10.0, allow_private=True)
    assert (await courier.post(receiver.url(), HEADERS, b"{}")).status == status
    await courier.close()
    assert not elsewhere.received


async def test_no_proxy_of_the_environment_is_used(
    listen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, receiver = await listen(), await listen()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url())
        monkeypatch.setenv(name.upper(), proxy.url())
    courier = Courier(timeout=10.0, allow_private=True)
    await courier.post(receiver.url(), HEADERS, b"{}")
    await courier.close()
    assert (len(receiver.received), len(proxy.received)) == (1, 0)


@pytest.mark.parametrize("kind", ["never", "drip"])
async def test_a_receiver_that_does_not_answer_is_left(
    listen: Callable[..., Any], reply: Any, kind: str
) -> None:
    receiver = await listen(getattr(reply, kind))
    courier = Courier(timeout=0.3, allow_private=True)
    with pytest.raises(PostFailed, match=r"no answer within 0\.3 s"):
        await courier.post(receiver.url(), HEADERS, b"{}")
    await receiver.wait_idle()
    await courier.close()


async def test_what_comes_after_the_headers_is_not_waited_for(
    listen: Callable[..., Any], reply: Any
) -> None:
    receiver = await listen(reply.drip_body)
    courier = Courier(timeout=10.0, allow_private=True)
    assert (await courier.post(receiver.url(), HEADERS, b"{}")).status == 200
    await receiver.wait_idle()
    await courier.close()


async def test_headers_without_end_are_not_read(listen: Callable[..., Any]) -> None:
    async def flood(reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1_000_000)
        await writer.drain()
        await reader.read()

    receiver = await listen(flood)
    courier = Courier(timeout=10.0, allow_private=True)
    with pytest.raises(PostFailed, match="ProtocolError"):
        await courier.post(receiver.url(), HEADERS, b"{}")
    await courier.close()


async def test_nobody_listens() -> None:
    courier = Courier(timeout=10.0, allow_private=True)
    with pytest.raises(PostFailed, match="ConnectError"):
        await courier.post("http://127.0.0.1:9/", HEADERS, b"{}")
    await courier.close()
    await courier.close()
