"""Where a WireGuard peer is spoken to: a host name or address, and a UDP port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from warren.names import is_domain

DEFAULT_PORT = 51820

IPAddress: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """What the operator wrote and the document carries: `host` is a name or an address without brackets."""

    host: str
    port: int

    @property
    def address(self) -> IPAddress | None:
        """The host as an address, or None where it is a name."""
        return _address(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """What the kernel knows of a peer's endpoint: always an address."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def parse_endpoint(text: str, default_port: int = DEFAULT_PORT) -> Endpoint:
    """Read `host`, `host:port`, `1.2.3.4`, `2001:db8::1`, `[2001:db8::1]:port`; ValueError says what is wrong."""
    host, port = _split(text, default_port)
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is outside 1–65535")
    address = _address(host)
    if address is not None:
        return Endpoint(str(address), port)
    if re.fullmatch(r"[0-9.]+", host) or not is_domain(host.removesuffix(".")):
        raise ValueError(f"{host!r} is neither a host name nor an address")
    return Endpoint(host.removesuffix(".").lower(), port)


def _split(text: str, default_port: int) -> tuple[str, int]:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
        if not isinstance(_address(host), IPv6Address):
            raise ValueError(f"{host!r} in brackets is not an IPv6 address")
        return host, _port(port, default_port)
    if text.count(":") > 1:  # an IPv6 address without brackets; no port can follow one
        if _address(text) is None:
            raise ValueError(f"{text!r} is not an IPv6 address; with a port, write [address]:port")
        return text, default_port
    host, _, rest = text.partition(":")
    return host, _port(rest if ":" in text else None, default_port)


def _port(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError(f"{text!r} is not a port")
    return int(text)


def _address(host: str) -> IPAddress | None:
    try:
        address = ip_address(host)
    except (AddressValueError, ValueError):
        return None
    # A zone (fe80::1%eth0) means something on one machine only.
    return None if isinstance(address, IPv6Address) and address.scope_id else address
