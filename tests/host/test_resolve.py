"""Endpoints to addresses: real lookups through the C library, with a hosts file and a DNS server of the test's own."""

import socket
import struct
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from namespaces import in_namespace, sh
from warren.host.resolve import Resolution, resolve
from warren.wireguard.endpoint import Endpoint, SocketAddress


def addresses(resolution: Resolution) -> list[str]:
    return [str(each) for each in resolution.addresses]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_needs_no_lookup(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    endpoint = Endpoint(host, 51820)
    assert resolve([endpoint]) == {endpoint: Resolution((SocketAddress(ip_address(host), 51820),))}


def test_nothing_is_nothing() -> None:
    assert resolve([]) == {}


def etc(hosts: str, nameserver: str = "127.0.0.1") -> None:
    """The machine's name resolution: this hosts file, then this DNS server."""
    for name, text in (
        ("hosts", hosts),
        ("resolv.conf", f"nameserver {nameserver}\noptions timeout:30 attempts:1\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ):
        Path(f"/run/{name}").write_text(text)
        sh(f"mount --bind /run/{name} /etc/{name}")


@pytest.mark.root
def test_both_families_without_doubles_and_without_link_local_ones() -> None:
    def check() -> None:
        etc(
            "192.0.2.1 vpn1.example.com\n2001:db8::1 vpn1.example.com\n192.0.2.1 vpn1.example.com\n"
            "fe80::1 vpn2.example.com\n"
        )
        one, two = Endpoint("vpn1.example.com", 51820), Endpoint("vpn2.example.com", 51820)
        found = resolve([one, two, one])
        assert sorted(addresses(found[one])) == ["192.0.2.1:51820", "[2001:db8::1]:51820"]
        assert found[one].problem == ""
        assert found[two] == Resolution((), "vpn2.example.com: no usable address")

    in_namespace(check)


@pytest.mark.root
def test_names_that_nobody_knows_are_a_value() -> None:
    def check() -> None:
        etc("")
        with DnsServer():
            endpoints = [Endpoint("nowhere.example.com", 51820), Endpoint("a" * 64 + ".example.com", 1)]
            for endpoint, resolution in resolve(endpoints).items():
                assert resolution.addresses == ()
                assert resolution.problem.startswith(f"{endpoint.host}: ")

    in_namespace(check)


@pytest.mark.root
def test_names_from_dns() -> None:
    def check() -> None:
        etc("")
        endpoint = Endpoint("vpn.example.com", 443)
        with DnsServer({"vpn.example.com": "192.0.2.9"}):
            assert addresses(resolve([endpoint])[endpoint]) == ["192.0.2.9:443"]

    in_namespace(check)


@pytest.mark.root
def test_a_dead_dns_server_delays_nobody_beyond_the_timeout() -> None:
    """Twenty names, a resolver that would wait 30 s for each, and the one name that can be answered."""

    def check() -> None:
        etc("192.0.2.1 known.example.com\n")
        known = Endpoint("known.example.com", 1)
        unknown = [Endpoint(f"vpn{number}.example.com", 51820) for number in range(20)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 53))
            before = time.monotonic()
            found = resolve([*unknown, known], timeout_s=1.0)
            assert time.monotonic() - before < 10.0  # one after the other they would take 20 s at least
        assert addresses(found[known]) == ["192.0.2.1:1"]
        assert {found[each] for each in unknown} == {Resolution((), "no answer from the resolver in 1 s")}

    in_namespace(check)


class DnsServer:
    """Answers A questions for the names that it knows, and says of all else that there is no such thing."""

    def __init__(self, names: dict[str, str] | None = None) -> None:
        self.names = names or {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def __enter__(self) -> None:
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def __exit__(self, *reason: object) -> None:
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, client = self.socket.recvfrom(512)
            except OSError:
                return
            self.socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        labels, position = [], 12
        while question[position]:
            labels.append(question[position + 1 : position + 1 + question[position]].decode())
            position += 1 + question[position]
        kind = struct.unpack_from("!H", question, position + 1)[0]
        address = self.names.get(".".join(labels))
        end = position + 5
        records = b""
        if address is not None and kind == 1:
            records = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton(address))
        flags = 0x8180 if address is not None else 0x8183
        return question[:2] + struct.pack("!HHHHH", flags, 1, bool(records), 0, 0) + question[12:end] + records
