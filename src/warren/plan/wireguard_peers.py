"""Which WireGuard peers a machine has, and what each may send and is sent: cryptokey routing of the whole mesh."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network

from warren.names import MachineName
from warren.network import addresses
from warren.network.document import ControllerEntry, Document, Entry, PeerEntry
from warren.network.invitations import guest_address
from warren.plan import reachability
from warren.plan.reachability import Reachability
from warren.wireguard.device import AllowedIP, Peer

KEEPALIVE_S = 25  # what NATs are known to bear (wg(8), PersistentKeepalive)

NamedPeers = list[tuple[MachineName, Peer]]


def wireguard_peers(document: Document, me: Entry, reaches: Reachability) -> NamedPeers:
    """By machine, those that have a key. What controllers hold does not depend on who reaches whom."""
    if isinstance(me, ControllerEntry):
        return _of_controller(document, me)
    return _of_peer(document, me, reaches)


def _of_controller(document: Document, me: ControllerEntry) -> NamedPeers:
    """A controller speaks to every other controller, and accepts every peer in every subnet."""
    subnets = [controller.subnet for controller in document.controllers.values()]
    controllers = [
        (entry.name, Peer(entry.public_key, _allowed_ips(entry.subnet, *entry.routes), entry.endpoint, KEEPALIVE_S))
        for entry in document.controllers.values()
        if entry.name != me.name and entry.public_key is not None
    ]
    peers = [
        (
            entry.name,
            Peer(
                entry.public_key,
                frozenset([addresses.peer_range(subnet, entry.suffix) for subnet in subnets]),
                None,
                KEEPALIVE_S,
            ),
        )
        for entry in document.peers.values()
        if entry.public_key is not None
    ]
    return controllers + peers + list(_guests(document, me))


def _guests(document: Document, me: ControllerEntry) -> Iterator[tuple[MachineName, Peer]]:
    """Those who were invited, by their one-time keys: one address each, which the firewall lets speak to one port."""
    for each in document.invitations:
        address = IPv6Network(guest_address(me.subnet, each.public_key))
        yield MachineName(f"{each.machine} (invited)"), Peer(each.public_key, _allowed_ips(address))


def _of_peer(document: Document, me: PeerEntry, reaches: Reachability) -> NamedPeers:
    """A peer speaks to every controller: for what that one carries, and always for its own address and networks."""
    held: dict[MachineName, set[AllowedIP]] = {name: set() for name in document.controllers}
    for owner, carrier in reachability.carriers(document, reaches.usable).items():
        entry = document.controllers[owner]
        held[carrier].add(AllowedIP.of(entry.subnet))
        held[owner] |= _allowed_ips(IPv6Network(entry.address), *entry.routes)
        if carrier != owner:
            # Nobody else's packets are in it: what we send to our turning address still goes to the owner, and what
            # it sends back comes from our own address and is accepted from it. So we see when it forwards again.
            held[owner].add(addresses.peer_range(entry.subnet, me.suffix))
    for carrier, _, peer_range in reachability.exceptions(document, me, reaches):
        held[carrier].add(peer_range)
    return [
        (entry.name, Peer(entry.public_key, frozenset(held[entry.name]), entry.endpoint, KEEPALIVE_S))
        for entry in document.controllers.values()
        if entry.public_key is not None
    ]


def _allowed_ips(*networks: IPv6Network) -> frozenset[AllowedIP]:
    return frozenset(map(AllowedIP.of, networks))
