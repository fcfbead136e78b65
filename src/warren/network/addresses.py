"""Addresses from names: the formulas, as numbers. Text is for people.

Compatible with deployments that exist: SHA-256 of the UTF-8 name, cut to the width that is needed.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network

from warren.names import InstanceName, MachineName
from warren.wireguard.device import AllowedIP

BASE_BITS = 40
SUBNET_BITS = 56
PEER_RANGE_BITS = 96
SUFFIX_BITS = 64
ULA = IPv6Network("fd00::/8")  # RFC 4193, locally assigned

_CONTROLLER_SHIFT = 128 - SUBNET_BITS
_UPPER_SUFFIX_SHIFT = 32


def digest(name: str, candidate: int = 0) -> bytes:
    """SHA-256 of the name; of `name#1`, `name#2`, … for the candidates that a newcomer tries when one is taken."""
    return sha256((f"{name}#{candidate}" if candidate else name).encode()).digest()


def base_network(instance: InstanceName, candidate: int = 0) -> IPv6Network:
    """The instance's /40: the byte fd, three bytes of the digest, a zero byte.

    24 bits of entropy, fixed by deployments that exist; RFC 4193 would draw 40 at random.
    """
    return IPv6Network((b"\xfd" + digest(instance, candidate)[:3] + bytes(12), BASE_BITS))


def controller_subnet(base: IPv6Network, name: MachineName, candidate: int = 0) -> IPv6Network:
    """The controller's /56: two bytes of the digest below the base's 40 bits."""
    number = int.from_bytes(digest(name, candidate)[:2], "big")
    return IPv6Network((int(base.network_address) | number << _CONTROLLER_SHIFT, SUBNET_BITS))


def peer_suffix(name: MachineName, candidate: int = 0) -> int:
    """The peer's 64 low bits, the same in every controller's subnet."""
    return int.from_bytes(digest(name, candidate)[:8], "big")


def upper_half(suffix: int) -> int:
    """The 32 bits that tell one peer's /96 from another's; 0 would cover the controller's own ::1."""
    return suffix >> _UPPER_SUFFIX_SHIFT


def controller_address(subnet: IPv6Network) -> IPv6Address:
    return IPv6Address(int(subnet.network_address) | 1)


def peer_address(subnet: IPv6Network, suffix: int) -> IPv6Address:
    return IPv6Address(int(subnet.network_address) | suffix)


def peer_range(subnet: IPv6Network, suffix: int) -> AllowedIP:
    """The /96 around the peer's address: what controllers accept from it in this subnet."""
    number = int(subnet.network_address) | upper_half(suffix) << _UPPER_SUFFIX_SHIFT
    return AllowedIP(number.to_bytes(16, "big"), PEER_RANGE_BITS)


def turning_address(subnet: IPv6Network, suffix: int) -> IPv6Address:
    """An address in the peer's /96 that is nobody's: the low 32 bits of its own, inverted.

    What the peer sends to it the controller forwards straight back: so the peer sees whether the controller forwards.
    """
    return IPv6Address(int(subnet.network_address) | suffix ^ (1 << _UPPER_SUFFIX_SHIFT) - 1)


def suffix_text(suffix: int) -> str:
    """Four groups of four hexadecimal digits, none left out."""
    digits = f"{suffix:016x}"
    return ":".join(digits[i : i + 4] for i in range(0, 16, 4))


def parse_suffix(text: str) -> int:
    """Read four groups, zeros written out or not; ValueError says what is wrong."""
    return int.from_bytes(_groups(text, 4, 4), "big")


def prefix_text(subnet: IPv6Network) -> str:
    """The subnet's four groups, none left out, so that `prefix::1` and `prefix:suffix` are both addresses."""
    packed = subnet.network_address.packed
    return ":".join(f"{int.from_bytes(packed[i : i + 2], 'big'):x}" for i in range(0, 8, 2))


def parse_prefix(text: str) -> IPv6Network:
    """Read a controller's stored prefix; ValueError says what is wrong.

    Repositories that exist hold texts which lost trailing zero groups (`fd28:387a:ac` for `fd28:387a:ac:0`):
    missing groups are zero. A network (`fd28:387a:ac::/56`) is read too.
    """
    if "/" in text or "::" in text:
        network = IPv6Network(text if "/" in text else f"{text.removesuffix('::')}::/{SUBNET_BITS}")
        if network.prefixlen != SUBNET_BITS:
            raise ValueError(f"a controller's subnet is a /{SUBNET_BITS}, this is a /{network.prefixlen}")
    else:
        packed = _groups(text, 1, 4)
        if packed[7]:
            raise ValueError(f"{text!r} has bits below its /{SUBNET_BITS}")
        network = IPv6Network((packed + bytes(8), SUBNET_BITS))
    if not network.subnet_of(ULA):
        raise ValueError(f"{text!r} is not in {ULA}")
    return network


def base_of(subnet: IPv6Network) -> IPv6Network:
    return subnet.supernet(new_prefix=BASE_BITS)


def _groups(text: str, fewest: int, most: int) -> bytes:
    groups = text.split(":")
    if not fewest <= len(groups) <= most:
        raise ValueError(
            f"{text!r} has {len(groups)} groups, not {fewest if fewest == most else f'{fewest} to {most}'}"
        )
    packed = b""
    for group in groups:
        if not (1 <= len(group) <= 4 and all(digit in "0123456789abcdefABCDEF" for digit in group)):
            raise ValueError(f"{group!r} in {text!r} is not a group of hexadecimal digits")
        packed += int(group, 16).to_bytes(2, "big")
    return packed.ljust(2 * most, b"\0")
