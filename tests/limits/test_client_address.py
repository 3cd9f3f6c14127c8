"""R32: whom a request is counted for, whatever its headers say."""

from collections.abc import Sequence

import pytest

from agentflow_server.errors import ConfigError
from agentflow_server.limits.address import client_address, limit_key, parse_networks

PROXIES = parse_networks(["10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1"])


def test_r32_without_trusted_proxies_the_header_is_ignored() -> None:
    assert client_address("10.0.0.1", ["192.0.2.1"], ()) == "10.0.0.1"


def test_r32_a_peer_that_is_no_proxy_is_the_client() -> None:
    assert client_address("192.0.2.9", ["198.51.100.1"], PROXIES) == "192.0.2.9"


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["192.0.2.1"], "192.0.2.1"),
        (["203.0.113.5, 192.0.2.1"], "192.0.2.1"),
        (["203.0.113.5", "192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.2.3.4"], "192.0.2.1"),
        (["192.0.2.1,10.2.3.4 , 10.2.3.5"], "192.0.2.1"),
        (["203.0.113.5, 192.0.2.1", "10.2.3.4"], "192.0.2.1"),
        (["10.2.3.4, 10.2.3.5"], "10.2.3.4"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["2001:DB8:2::1"], "2001:db8:2::1"),
        (["[2001:db8:2::1]:4711"], "2001:db8:2::1"),
        (["[2001:db8:2::1]"], "2001:db8:2::1"),
        (["2001:db8:2::1, 2001:db8:1::7"], "2001:db8:2::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["garbage, 192.0.2.1"], "192.0.2.1"),
    ],
)
def test_r32_behind_proxies_the_last_hop_that_is_not_trusted_is_the_client(
    headers: Sequence[str], client: str
) -> None:
    assert client_address("10.0.0.1", headers, PROXIES) == client


@pytest.mark.parametrize(
    "header",
    [
        "garbage",
        "192.0.2.1, garbage",
        "192.0.2.1, unknown, 10.2.3.4",
        "192.0.2.1,",
        "192.0.2.1,,10.2.3.4",
        "192.0.2.256",
        "192.0.2.1:port",
        "192.0.2.1:",
        "192.0.2.1:123456",
        "[2001:db8:2::1",
        "[2001:db8:2::1]4711",
        "192.0.2.1 192.0.2.2",
        "192.0.2.0/24",
        "0300.0.2.1",
        "\u0661\u0669\u0662.0.2.1",
    ],
)
def test_r32_a_malformed_header_is_void(header: str) -> None:
    assert client_address("10.0.0.1", [header], PROXIES) == "10.0.0.1"


def test_a_very_long_header_is_read_from_its_end_only() -> None:
    header = ",".join(["x"] * 100_000 + ["192.0.2.1"])
    assert client_address("10.0.0.1", [header], PROXIES) == "192.0.2.1"


@pytest.mark.parametrize("peer", ["::ffff:10.0.0.1", "2001:db8:1::9", "127.0.0.1"])
def test_a_proxy_is_recognised_in_either_family(peer: str) -> None:
    assert client_address(peer, ["192.0.2.1"], PROXIES) == "192.0.2.1"


@pytest.mark.parametrize("peer", ["", "-", "testclient", "/run/agentflow.sock"])
def test_a_peer_without_an_address_is_no_proxy(peer: str) -> None:
    assert client_address(peer, ["192.0.2.1"], PROXIES) == peer


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:2:3:4:5:6:7", "2001:db8:2:3::/64"),
        ("2001:db8:2:3::", "2001:db8:2:3::/64"),
        ("2001:db8:2:4::1", "2001:db8:2:4::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        ("no:address", "no:address"),
    ],
)
def test_the_addresses_of_one_customer_are_counted_together(address: str, key: str) -> None:
    assert limit_key(address) == key


def test_networks_are_checked_at_start_up() -> None:
    with pytest.raises(ConfigError, match=r"limits\.trusted_proxies: .*10\.0\.0\.1/8"):
        parse_networks(["10.0.0.1/8"])
    with pytest.raises(ConfigError, match=r"limits\.trusted_proxies: "):
        parse_networks(["proxy.example.org"])
