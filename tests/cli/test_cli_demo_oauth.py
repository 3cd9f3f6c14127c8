"""`agentflow demo-oauth`: where it listens, what it says, how it ends."""

import signal
import socket
import sys

import httpx2
import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_on_a_free_port_and_ends_quietly(number, start):
    provider = start("demo-oauth", "--port", "0", "--token-lifetime", "60")
    url = provider.wait_for_url()
    metadata = httpx2.get(f"{url}/.well-known/openid-configuration", timeout=60).json()
    assert metadata["issuer"] == url
    assert provider.stop(number) == 0
    assert provider.stderr == []
    assert "for development and tests only" in "\n".join(provider.stdout)


def test_it_serves_on_ipv6_as_well(start):
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    provider = start("demo-oauth", "--host", "::1", "--port", "0")
    url = provider.wait_for_url()
    assert url.startswith("http://[::1]:")
    assert httpx2.get(url, timeout=60).status_code == 200


def test_a_port_that_is_taken_is_one_line(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("demo-oauth", "--port", port)
    assert result.exit_code == 1
    assert result.stderr == (f"cannot listen on 127.0.0.1, port {port}: Address already in use\n")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::"])
def test_an_address_that_others_reach_is_refused_in_one_line(host, run):
    result = run("demo-oauth", "--host", host)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "listens on a loopback address only" in result.stderr
    assert result.stdout == ""


def test_without_the_extra_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "authlib", None)
    result = run("demo-oauth")
    assert result.exit_code == 2
    assert result.stderr == "demo-oauth: pip install 'agentflow-server[demo]'\n"
