"""A plan as systemd-networkd reads it, and beside it what networkd has no words for: firewall and forwarding.

Forwarding is left to sysctl.d(5): `IPForward=` is deprecated since systemd 256, and `IPv6Forwarding=` of one interface
does not make Linux forward (it asks `all.forwarding`, or `force_forwarding` from 6.17 on).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network

from warren.plan.desired import Desired
from warren.plan.steps import ROUTE_METRIC, ROUTE_PROTOCOL, UNREACHABLE_METRIC
from warren.render.foreign import (
    File,
    check_interface,
    commented,
    drop_firewall,
    forwarding_sysctls,
    load_firewall,
    origin,
    peer_settings,
    peers_by_name,
    section,
)

FOLDER = "/etc/systemd/network"


def networkd(desired: Desired) -> tuple[File, ...]:
    """The interface, its network, the firewall as a unit; on a controller, sysctls."""
    check_interface(desired)
    start = f"{FOLDER}/50-{desired.interface}"
    files = [
        _file(desired, f"{start}.netdev", _netdev(desired), _key_notes(desired)),
        _file(desired, f"{start}.network", _network(desired)),
        _file(desired, f"/etc/systemd/system/warren-{desired.instance}-firewall.service", _firewall(desired)),
    ]
    if sysctls := forwarding_sysctls(desired):
        # With the dash, that a kernel before 6.17 does not know the first is no error.
        text = "".join(f"-{name} = 1\n" for name in sysctls)
        notes = ("From Linux 6.17 on the first line is enough: it turns one interface into a router's, the other all.",)
        files.append(_file(desired, f"/etc/sysctl.d/50-{desired.interface}.conf", text, notes))
    return tuple(files)


def _file(desired: Desired, path: str, text: str, notes: tuple[str, ...] = ()) -> File:
    head = commented([f"{path}: {origin(desired, 'networkd')}", *notes])
    return File(path, f"{head}\n{text}")


def _key_path(desired: Desired) -> str:
    """/etc/wireguard is closed to networkd, which runs as a user of its own."""
    return f"{FOLDER}/{desired.interface}.key"


def _key_notes(desired: Desired) -> tuple[str, ...]:
    path = _key_path(desired)
    return (
        f"Key: umask 077; wg genkey > {path}; chown root:systemd-network {path}; chmod 640 {path}",
        "Names: the same command with --format hosts prints a block for /etc/hosts",
    )


def _netdev(desired: Desired) -> str:
    netdev = [("Name", desired.interface), ("Kind", "wireguard"), ("MTUBytes", str(desired.mtu_bytes))]
    wireguard = [("PrivateKeyFile", _key_path(desired))]
    if desired.listen_port is not None:
        wireguard.append(("ListenPort", str(desired.listen_port)))
    peers = [section("WireGuardPeer", peer_settings(peer), name) for name, peer in peers_by_name(desired)]
    return "\n".join([section("NetDev", netdev), section("WireGuard", wireguard), *peers])


def _network(desired: Desired) -> str:
    unreachable = [
        ("Type", "unreachable"),
        ("Destination", str(desired.base)),
        ("Metric", str(UNREACHABLE_METRIC)),
        ("Protocol", str(ROUTE_PROTOCOL)),
    ]
    return "\n".join(
        [
            section("Match", [("Name", desired.interface)]),
            section("Link", [("RequiredForOnline", "no")]),
            section("Network", [("LinkLocalAddressing", "no"), ("IPv6AcceptRA", "no")]),
            *(
                section("Address", [("Address", str(address)), ("DuplicateAddressDetection", "none")])
                for address in sorted(desired.addresses)
            ),
            *(section("Route", _route(network)) for network in sorted(desired.routes)),
            section("Route", unreachable),
        ]
    )


def _route(network: IPv6Network) -> list[tuple[str, str]]:
    return [("Destination", str(network)), ("Metric", str(ROUTE_METRIC)), ("Protocol", str(ROUTE_PROTOCOL))]


def _firewall(desired: Desired) -> str:
    return "\n".join(
        [
            section("Unit", _unit(desired)),
            section(
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", load_firewall(desired)),
                    ("ExecStop", drop_firewall(desired)),
                ],
            ),
            section("Install", [("WantedBy", "multi-user.target")]),
        ]
    )


def _unit(desired: Desired) -> Iterator[tuple[str, str]]:
    yield "Description", f"Firewall of the mesh {desired.instance}"
    yield "Wants", "network-pre.target"
    yield "Before", "network-pre.target"
    yield "After", "nftables.service"
