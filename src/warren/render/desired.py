"""One machine's desired state as a tree for programs: what `warren plan MACHINE --json` prints.

    {"machine": M, "instances": {I: {
        "interface", "public_key" (null: not made yet), "listen_port" (null: any), "mtu",
        "addresses": ["address/length"],
        "peers": [{"machine", "public_key", "allowed_ips": [CIDR], "endpoint": "host:port" or null,
                   "persistent_keepalive",
                   "preshared_keys": [fingerprint or "": none] where there are some, the one in force first}],
                                                           WireGuard's, by machine
        "routes": [{"type": "unicast" or "unreachable", "destination": CIDR}],
        "forwarding": bool,
        "firewall": {"open_udp_port": port or null, "forward_within": interface or null,
                     "forward_to": [CIDR] where there are networks behind the machine},
        "preshared_command": program, where one says the preshared keys,
        "hosts": [{"address", "name"}]}}}

The MTU is what the inventory sets, else the usual one; machines derive their own from the way to the endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address

from warren.names import MachineName
from warren.plan.desired import Desired
from warren.wireguard.device import AllowedIP, Peer
from warren.wireguard.keys import PublicKey


def desired_tree(
    machine: MachineName, instances: Iterable[Desired], unknown: frozenset[PublicKey] = frozenset()
) -> dict[str, object]:
    """The machine's instances by name; every list is sorted, so that equal plans are equal texts.

    `unknown`: keys that only stand for keys not made yet; null in the tree.
    """
    return {"machine": machine, "instances": {desired.instance: _instance(desired, unknown) for desired in instances}}


def _instance(desired: Desired, unknown: frozenset[PublicKey]) -> dict[str, object]:
    peers = sorted(desired.peers.values(), key=lambda peer: desired.peer_names[peer.public_key])
    return {
        "interface": desired.interface,
        "public_key": _key(desired.public_key, unknown),
        "listen_port": desired.listen_port,
        "mtu": desired.mtu_bytes,
        "addresses": [str(address) for address in sorted(desired.addresses)],
        "peers": [_peer(desired, peer, unknown) for peer in peers],
        "routes": [
            *({"type": "unicast", "destination": str(address.network)} for address in sorted(desired.addresses)),
            *({"type": "unicast", "destination": str(network)} for network in sorted(desired.routes)),
            {"type": "unreachable", "destination": str(desired.base)},
        ],
        "forwarding": desired.forwards,
        "firewall": {
            "open_udp_port": desired.firewall.listen_port,
            "forward_within": desired.firewall.interface if desired.firewall.forward else None,
            **({"forward_to": list(map(str, desired.firewall.routes))} if desired.firewall.routes else {}),
            **({"invited": str(desired.firewall.guests.network)} if desired.firewall.guests else {}),
        },
        **({"preshared_command": desired.preshared_command} if desired.preshared_command else {}),
        "hosts": [{"address": str(line.address), "name": line.name} for line in desired.hosts],
    }


def _peer(desired: Desired, peer: Peer, unknown: frozenset[PublicKey]) -> dict[str, object]:
    preshared = desired.preshared.get(peer.public_key, ())
    return {
        "machine": desired.peer_names[peer.public_key],
        "public_key": _key(peer.public_key, unknown),
        "allowed_ips": allowed_ips_texts(peer.allowed_ips),
        "endpoint": str(peer.endpoint) if peer.endpoint is not None else None,
        "persistent_keepalive": peer.keepalive_s,
        **({"preshared_keys": list(preshared)} if preshared else {}),
    }


def _key(key: PublicKey | None, unknown: frozenset[PublicKey]) -> str | None:
    return None if key is None or key in unknown else key.text


def allowed_ips_texts(allowed_ips: Iterable[AllowedIP]) -> list[str]:
    """In the order of their numbers. IPv6Address, not ip_network: a controller of 10,000 peers has 40,000 of these."""
    return [
        f"{IPv6Address(entry.packed)}/{entry.prefix_length}" if len(entry.packed) == 16 else str(entry)
        for entry in sorted(allowed_ips)
    ]
