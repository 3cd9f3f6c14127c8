"""Which URLs may be a webhook."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_server.config import WebhooksConfig
from agentflow_server.errors import InvalidRequest
from agentflow_server.webhooks import check_url

Make = Callable[..., WebhooksConfig]


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://hooks.example.com/a?b=c&d", "https://hooks.example.com/a?b=c&d"),
        ("HTTPS://Hooks.Example.COM:443/A%20b", "https://hooks.example.com/A%20b"),
        ("https://hooks.example.com", "https://hooks.example.com/"),
        ("https://hooks.example.com?x=//", "https://hooks.example.com/?x=//"),
        ("https://hooks.example.com:8443/", "https://hooks.example.com:8443/"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
        ("https://xn--bcher-kva.example/@you", "https://xn--bcher-kva.example/@you"),
        ("https://a_b.example.com/~c", "https://a_b.example.com/~c"),
    ],
)
def test_a_public_url_is_stored_in_one_form(config: Make, url: str, stored: str) -> None:
    rules = config(allow_private=False)
    assert check_url(url, rules) == stored
    assert check_url(stored, rules) == stored


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "https:",
        "https://",
        "https:///path",
        "https:/hooks.example.com/",
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "//hooks.example.com/",
        "https://user:secret@hooks.example.com/",
        "https://user@hooks.example.com/",
        "https://@hooks.example.com/",
        "https://hooks.example.com@127.0.0.1/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com/#",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:x/",
        "https://hooks.example.com\\@127.0.0.1/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/a\r\nX: y",
        "https://hooks.example.com/\t",
        "https://hooks.exämple.com/",
        "https://１２７.0.0.1/",
        "https://hooks%2eexample.com/",
        "https://hooks..example.com/",
        "https://hooks.example.com./",
        "https://.example.com/",
        "https://-a.example.com/",
        f"https://{'a' * 64}.example.com/",
        f"https://{'a.' * 127}com/",
        "https://hooks.example.com/" + "a" * 2048,
        "https://localhost/",
        "https://LOCALHOST:8443/",
        "https://a.localhost/",
        "https://printer/",
        "https://printer.local/",
        "https://metadata/",
        "https://metadata.google.internal/computeMetadata/v1/",
        "https://db.internal/",
        "https://router.home.arpa/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.100.100.200/",
        "https://0.0.0.0/",
        "https://0/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
        "https://a.b.1/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1]/",
        "https://[v1.x]/",
        "https://[127.0.0.1]/",
    ],
)
def test_a_url_that_cannot_be_public_is_refused_without_being_repeated(
    config: Make, url: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, config(allow_private=False))
    assert str(caught.value).startswith("webhook: ")
    assert len(url) < 20 or url not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/",
        "http://127.0.0.1:8000/",
        "https://10.1.2.3/",
        "http://receiver:8080/hook",
        "https://hooks.corp.internal/",
        "http://[fd12::1]/",
    ],
)
def test_a_closed_network_may_be_allowed(config: Make, url: str) -> None:
    assert check_url(url, config(allow_private=True)) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "https://metadata.google.internal/",
        "http://metadata.goog/",
        "https://[fd00:ec2::254]/",
        "http://0.0.0.0/",
        "http://2852039166/",
        "https://user@receiver/",
        "ftp://receiver/",
    ],
)
def test_metadata_is_refused_whatever_is_allowed(config: Make, url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_url(url, config(allow_private=True))


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://hooks.example.com/", True),
        ("https://HOOKS.example.com:8443/", True),
        ("https://a.trusted.example/", True),
        ("https://a.b.trusted.example/", True),
        ("https://trusted.example/", False),
        ("https://nottrusted.example/", False),
        ("https://hooks.example.com.evil.example/", False),
        ("https://evil.example/", False),
        ("https://8.8.8.8/", False),
        ("https://[2606:4700::1111]/", True),
    ],
)
def test_hosts_can_be_limited_to_those_of_a_list(config: Make, url: str, is_allowed: bool) -> None:
    hosts = ["hooks.example.com", "*.trusted.example", "2606:4700::1111"]
    rules = config(allow_private=False, allow_hosts=hosts)
    if is_allowed:
        assert check_url(url, rules)
    else:
        with pytest.raises(InvalidRequest):
            check_url(url, rules)


@given(st.text(max_size=60), st.text(max_size=40))
def test_no_text_breaks_it_and_what_passes_stays_as_it_is(host: str, rest: str) -> None:
    rules = WebhooksConfig(secret=["A"], keys=("whsec_",))
    for url in (host, f"https://{host}/{rest}", f"https://{host}.example.com/{rest}"):
        try:
            stored = check_url(url, rules)
        except InvalidRequest:
            continue
        assert check_url(stored, rules) == stored
        assert stored.startswith("https://")
