"""Endpoints as operators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.wireguard.endpoint import Endpoint, SocketAddress, parse_endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("vpn.example.com", "vpn.example.com", 51820),
        ("VPN.Example.com.:1234", "vpn.example.com", 1234),
        ("vpn1", "vpn1", 51820),
        ("192.0.2.1", "192.0.2.1", 51820),
        ("192.0.2.1:53", "192.0.2.1", 53),
        ("2001:db8::1", "2001:db8::1", 51820),
        ("2001:DB8:0::1", "2001:db8::1", 51820),
        ("[2001:db8::1]", "2001:db8::1", 51820),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
    ],
)
def test_what_operators_write(text: str, host: str, port: int) -> None:
    endpoint = parse_endpoint(text)
    assert endpoint == Endpoint(host, port)
    assert parse_endpoint(str(endpoint)) == endpoint
    assert (endpoint.address is None) == (host.startswith("vpn"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither a host name nor an address"),
        ("vpn example.com", "neither"),
        ("vpn.example.com:", "'' is not a port"),
        ("vpn.example.com:http", "'http' is not a port"),
        ("vpn.example.com:0", "outside 1–65535"),
        ("vpn.example.com:65536", "outside 1–65535"),
        ("vpn.example.com:-1", "'-1' is not a port"),
        ("192.0.2.256", "neither"),
        ("1.2.3", "neither"),
        ("[192.0.2.1]:1", "in brackets is not an IPv6 address"),
        ("[2001:db8::1", "with a port, write"),
        ("2001:db8::1:2:3:4:5:6:7", "not an IPv6 address"),
        ("fe80::1%eth0", "not an IPv6 address"),
        ("[fe80::1%eth0]:1", "not an IPv6 address"),
        ("https://vpn.example.com", "not a port"),
        ("-vpn.example.com", "neither"),
        ("a" * 64 + ".example.com", "neither"),
        (".".join(["abcdefgh"] * 29), "neither"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_endpoint(text)
    assert reason in str(error.value)


@given(st.text(max_size=30))
def test_nothing_but_value_errors(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.ip_addresses(), st.integers(1, 65535))
def test_socket_addresses_read_as_endpoints(address: object, port: int) -> None:
    endpoint = parse_endpoint(f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}")
    assert endpoint.address is not None
    assert str(SocketAddress(endpoint.address, port)) == str(endpoint)
