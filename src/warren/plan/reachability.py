"""Which controllers this machine and the others can use, and what follows: carriers, exceptions, names.

Two peers use between them what both can use, so both ends choose the same carrier for every subnet, with no word
between them but what each one cannot use (`plan.signals`). With equal health there are no exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from warren.names import MachineName
from warren.network import addresses
from warren.network.document import ControllerEntry, Document, Entry, PeerEntry, keys_of
from warren.plan.carriers import carrier
from warren.wireguard.device import AllowedIP, ObservedDevice

NOBODY: frozenset[MachineName] = frozenset()


@dataclass(frozen=True, slots=True)
class Reachability:
    """`usable`: the controllers that carry for this machine. `lost`: those that other peers cannot use, as they say."""

    usable: frozenset[MachineName]
    lost: Mapping[MachineName, frozenset[MachineName]] = field(default_factory=dict)

    def shared_with(self, peer: MachineName) -> frozenset[MachineName]:
        """The controllers that both this machine and that peer can use."""
        return self.usable - self.lost.get(peer, NOBODY)


def everything(document: Document) -> Reachability:
    """All controllers work, for all."""
    return Reachability(frozenset(document.controllers))


def carriers(document: Document, usable: frozenset[MachineName]) -> dict[MachineName, MachineName]:
    """Owner of each subnet -> who carries it."""
    return {owner: carrier(owner, document.controllers, usable) for owner in document.controllers}


def exceptions(
    document: Document, me: PeerEntry, reachability: Reachability
) -> Iterator[tuple[MachineName, MachineName, AllowedIP]]:
    """(Carrier, peer, the peer's /96 in a subnet) wherever that carrier differs from the whole subnet's."""
    usual = carriers(document, reachability.usable)
    for peer in sorted(reachability.lost):
        entry, shared = document.peers.get(peer), reachability.shared_with(peer)
        if entry is None or peer == me.name or not shared or shared == reachability.usable:
            continue
        for owner, chosen in carriers(document, shared).items():
            if chosen != usual[owner]:
                yield chosen, peer, addresses.peer_range(document.controllers[owner].subnet, entry.suffix)


def name_address(document: Document, entry: Entry, me: Entry, reachability: Reachability) -> IPv6Address:
    """Where the machine's host name points on `me`: an address that works from here, if there is one.

    A controller holds every peer's /96 in every subnet itself, so nothing depends on others there.
    """
    if isinstance(entry, ControllerEntry) or isinstance(me, ControllerEntry):
        return document.name_address(entry)
    chosen = carrier(entry.controller, document.controllers, reachability.shared_with(entry.name))
    return addresses.peer_address(document.controllers[chosen].subnet, entry.suffix)


def found(document: Document, me: MachineName, device: ObservedDevice | None) -> Reachability:
    """What the device was last told, read back: an agent that starts goes on from there, and moves nothing.

    A controller whose subnet another one holds was lost, and so, for a peer, was the owner of each subnet in which its
    /96 stands by itself. A device that says nothing of it is as good as new.
    """
    entry = document.entry(me)
    if not isinstance(entry, PeerEntry) or device is None:
        return everything(document)
    holders = _holders(document, device)
    usable = frozenset(
        name
        for name, controller in document.controllers.items()
        if holders.get(AllowedIP.of(controller.subnet), name) == name
    )
    lost: dict[MachineName, frozenset[MachineName]] = {}
    for peer in document.peers.values():
        if peer.name != me and (
            apart := frozenset(
                name
                for name in usable
                if holders.get(addresses.peer_range(document.controllers[name].subnet, peer.suffix), name) != name
            )
        ):
            lost[peer.name] = apart
    return Reachability(usable or frozenset(document.controllers), lost)


def _holders(document: Document, device: ObservedDevice) -> dict[AllowedIP, MachineName]:
    names = {key: entry.name for entry in document.controllers.values() for key in keys_of(entry)}
    return {allowed: names[key] for key, peer in device.peers.items() if key in names for allowed in peer.allowed_ips}
