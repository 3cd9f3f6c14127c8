"""Which addresses a webhook reaches."""

import pytest

from agentflow_server.webhooks.addresses import find_refusal

METADATA = [
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1",
    "fe80::1%1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "64:ff9b::a9fe:a9fe",  # 169.254.169.254 behind NAT64
]
PRIVATE = [
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "64:ff9b::a00:1",  # 10.0.0.1
    "64:ff9b::7f00:1",
]
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",  # no DNS has a reason to say it so
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fec0::1",
    "ff02::1",
    "4000::1",
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", [*METADATA, *PRIVATE, *SPECIAL])
def test_what_is_not_public_is_refused(address: str) -> None:
    assert find_refusal(address, allow_private=False)


@pytest.mark.parametrize("address", PUBLIC)
@pytest.mark.parametrize("allow_private", [True, False])
def test_what_is_public_is_allowed(address: str, allow_private: bool) -> None:
    assert find_refusal(address, allow_private=allow_private) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_can_be_allowed(address: str) -> None:
    assert find_refusal(address, allow_private=True) is None


@pytest.mark.parametrize("address", [*METADATA, *SPECIAL])
def test_metadata_and_what_no_host_has_can_not_be_allowed(address: str) -> None:
    assert find_refusal(address, allow_private=True)
