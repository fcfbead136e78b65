"""Document + me -> Desired: what this machine should be."""

from __future__ import annotations

from ipaddress import IPv6Interface

from warren.errors import DocumentRefused
from warren.names import MachineName
from warren.network import addresses
from warren.network.document import ControllerEntry, Document, Entry
from warren.network.invitations import guests
from warren.plan import asking, preshared, rotation
from warren.plan.desired import Desired, Firewall, Guests, HostLine
from warren.plan.reachability import Reachability, everything, name_address
from warren.plan.wireguard_peers import wireguard_peers
from warren.wireguard.device import Peer
from warren.wireguard.keys import PublicKey

DEFAULT_MTU_BYTES = 1420  # Ethernet's 1500 less WireGuard's 80 over IPv6


def plan(
    document: Document,
    machine: MachineName,
    *,
    path_mtu_bytes: int = DEFAULT_MTU_BYTES,
    reachability: Reachability | None = None,
) -> Desired:
    """What `machine` should be; DocumentRefused where the document does not know it.

    `path_mtu_bytes`: what fits through the tunnel on the way to the endpoints, unless the document sets the MTU.
    `reachability`: which controllers work, as seen from here and as other peers say; None: all of them.
    """
    me = own_entry(document, machine)
    peers = wireguard_peers(document, me, reachability or everything(document))
    second_keys = rotation.second_keys(document, machine)
    peers += [
        (name, Peer(second_keys[peer.public_key], frozenset(), peer.endpoint))
        for name, peer in peers
        if peer.public_key in second_keys
    ]
    choices = dict(preshared.of_machine(document, machine))
    return Desired(
        instance=document.instance,
        machine=machine,
        interface=me.interface,
        public_key=me.public_key,
        listen_port=me.port if isinstance(me, ControllerEntry) else None,
        mtu_bytes=me.mtu_bytes or path_mtu_bytes,
        addresses=_addresses(document, me),
        routes=frozenset(
            network for entry in document.controllers.values() if entry.name != machine for network in entry.routes
        ),
        base=document.base,
        peers={peer.public_key: peer for _, peer in peers},
        peer_names={peer.public_key: name for name, peer in peers},
        forwards=isinstance(me, ControllerEntry),
        firewall=_firewall(document, me),
        hosts=host_lines(document, me, reachability),
        preshared={peer.public_key: choices[name] for name, peer in peers if name in choices} if choices else {},
        preshared_command=document.preshared_command,
        invited=frozenset(each.public_key for each in document.invitations) & {peer.public_key for _, peer in peers},
        second_keys={peer.public_key: second for _, peer in peers if (second := second_keys.get(peer.public_key))},
    )


def own_entry(document: Document, machine: MachineName) -> Entry:
    """The machine's entry; DocumentRefused where the document does not know it."""
    entry = document.entry(machine)
    if entry is None:
        raise DocumentRefused(
            f'the document of instance "{document.instance}" has no machine "{machine}"',
            mend=f'add "{machine}" to a role of the instance, or take the instance down here: '
            f"warren down {document.instance}",
        )
    return entry


def _firewall(document: Document, me: Entry) -> Firewall:
    if isinstance(me, ControllerEntry):
        invited = Guests(guests(me.subnet), me.address, asking.PORT) if document.invitations else None
        return Firewall(me.interface, me.port, forward=True, routes=me.routes, guests=invited)
    return Firewall(me.interface, None, forward=False)


def host_lines(
    document: Document, me: Entry | None = None, reachability: Reachability | None = None
) -> tuple[HostLine, ...]:
    """Every machine's name, in the order of names, as `me` should see them; None: as they are when all works."""
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    reaches = reachability or everything(document)
    return tuple(
        HostLine(
            name_address(document, entry, me, reaches) if me else document.name_address(entry),
            f"{entry.name}.{document.domain}",
        )
        for entry in sorted(entries, key=lambda entry: entry.name)
    )


def _addresses(document: Document, me: Entry) -> frozenset[IPv6Interface]:
    if isinstance(me, ControllerEntry):
        # The whole base is on the interface: what comes from other subnets is forwarded and answered here.
        return frozenset({IPv6Interface((me.address, addresses.BASE_BITS))})
    return frozenset(
        IPv6Interface((addresses.peer_address(controller.subnet, me.suffix), addresses.SUBNET_BITS))
        for controller in document.controllers.values()
    )


def speaks_first(desired: Desired, public_key: PublicKey) -> bool:
    """Whether this machine starts the handshake with that peer where both could.

    Two controllers know each other's endpoint. Were both to start at one instant, both would wait for REKEY_TIMEOUT
    (5 s), once or several times; so the smaller key speaks and the other waits a moment.
    """
    mutual = desired.listen_port is not None and desired.peers[public_key].endpoint is not None
    return not mutual or desired.public_key is None or desired.public_key < public_key
