"""The client's address behind proxies: every form of X-Forwarded-For, and what cannot be read."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from jarvis_stream.transports.peers import UNKNOWN, address_of, is_direct
from jarvis_stream.transports.requests import is_loopback

LOCAL = "127.0.0.1"
PROXIES = [ip_network(LOCAL), ip_network("::1"), ip_network("10.0.0.0/8")]


def request_from(peer: str | None, *headers: tuple[str, str]) -> Any:
    transport = Mock()
    name = (peer, 5000) if peer else ""
    transport.get_extra_info.side_effect = lambda key, default=None: (
        name if key == "peername" else default
    )
    return make_mocked_request("GET", "/", CIMultiDict(headers), transport=transport)


def seen(*entries: str, peer: str = LOCAL) -> str:
    headers = [("X-Forwarded-For", entry) for entry in entries]
    return address_of(request_from(peer, *headers), PROXIES)


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("9.9.9.5", "9.9.9.5"),
        (" 9.9.9.5\t", "9.9.9.5"),
        ("9.9.9.5:1234", "9.9.9.5"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8:0::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ('"9.9.9.5:1234"', "9.9.9.5"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("::ffff:9.9.9.5", "9.9.9.5"),
        ("[::ffff:9.9.9.5]:80", "9.9.9.5"),
        ("1.1.1.1, 9.9.9.5", "9.9.9.5"),
        ("127.0.0.1, 9.9.9.5", "9.9.9.5"),
        ("9.9.9.5, 10.1.1.1:99", "9.9.9.5"),
        ("9.9.9.5,,", "9.9.9.5"),
        ("9.9.9.5, 127.0.0.1", "9.9.9.5"),
        ("127.0.0.1", LOCAL),
        ("[::1]:80", "::1"),
    ],
)
def test_an_entry_with_or_without_a_port_gives_its_address(entry: str, address: str) -> None:
    assert seen(entry) == address


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        ",",
        "unknown",
        "_hidden",
        "_SEVKISEK:1234",
        "9.9.9.5:http",
        "9.9.9.5:123456",
        "9.9.9",
        "9.9.9.999",
        "[9.9.9.5]",
        "[127.0.0.1]:80",
        "[::1",
        "::1]",
        "localhost",
        "localhost:80",
        "127.1",
        "for=127.0.0.1",
        '"127.0.0.1',
        "127.0.0.1;proto=https",
        "127.0.0.1, unknown",
        "9.9.9.5, _hidden, 10.0.0.7",
        "\u0661\u0662\u0667.0.0.1",
        "127.0.0.1, 10.0.0.7",
    ],
)
def test_what_is_no_address_is_never_this_machine(entry: str) -> None:
    assert seen(entry) == UNKNOWN
    assert not is_loopback(seen(entry))


@given(st.text(st.characters(codec="latin-1"), max_size=40))
@example("127.0.0.1")
@example("[::1]")
def test_rubbish_is_an_address_or_unknown(entry: str) -> None:
    try:
        address = seen(entry)
    except ValueError:
        return  # this cannot stand in a header
    if address != UNKNOWN:
        assert str(ip_address(address)) == address
    if is_loopback(address):
        assert re.search(r"127\.|:0*1\b", entry)


def test_several_headers_are_one_list() -> None:
    assert seen("1.1.1.1", "9.9.9.5:80") == "9.9.9.5"


def test_a_loopback_entry_of_a_remote_proxy_is_not_this_machine() -> None:
    assert seen("127.0.0.1", peer="10.0.0.7") == UNKNOWN
    assert seen("9.9.9.5", peer="10.0.0.7") == "9.9.9.5"


def test_the_headers_of_an_untrusted_peer_do_not_count() -> None:
    assert seen("9.9.9.5", peer="203.0.113.1") == "203.0.113.1"
    assert seen("unknown", peer="203.0.113.1") == "203.0.113.1"


def test_a_trusted_proxy_that_writes_forwarded_only_names_nobody() -> None:
    forwarded = ("Forwarded", "for=9.9.9.5")
    assert address_of(request_from(LOCAL, forwarded), PROXIES) == UNKNOWN
    passed_on = ("X-Forwarded-For", LOCAL)
    assert address_of(request_from(LOCAL, forwarded, passed_on), PROXIES) == UNKNOWN


def test_a_request_without_a_forwarding_header_is_its_peer() -> None:
    assert address_of(request_from(LOCAL), PROXIES) == LOCAL
    assert address_of(request_from(None), PROXIES) == ""
    assert is_direct(request_from(LOCAL))
    assert is_direct(request_from("::1"))


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded"])
def test_a_forwarded_request_is_not_direct(name: str) -> None:
    for value in ("", "127.0.0.1", "unknown"):
        assert not is_direct(request_from(LOCAL, (name, value)))
