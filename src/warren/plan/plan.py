"""Document + me -> Desired: what this machine should be."""

from __future__ import annotations

from ipaddress import IPv6Interface, IPv6Network

from warren.errors import DocumentRefused
from warren.names import MachineName
from warren.network import addresses
from warren.network.document import ControllerEntry, Document, Entry
from warren.plan import rotation
from warren.plan.carriers import carrier
from warren.plan.desired import Desired, Firewall, HostLine
from warren.wireguard.device import AllowedIP, Peer
from warren.wireguard.keys import PublicKey

KEEPALIVE_S = 25  # what NATs are known to bear (wg(8), PersistentKeepalive)
DEFAULT_MTU_BYTES = 1420  # Ethernet's 1500 less WireGuard's 80 over IPv6


def plan(
    document: Document,
    machine: MachineName,
    *,
    path_mtu_bytes: int = DEFAULT_MTU_BYTES,
    healthy: frozenset[MachineName] | None = None,
) -> Desired:
    """What `machine` should be; DocumentRefused where the document does not know it.

    `path_mtu_bytes`: what fits through the tunnel on the way to the endpoints, unless the document sets the MTU.
    `healthy`: the controllers that work, as seen from here; None: all of them.
    """
    me = document.entry(machine)
    if me is None:
        raise DocumentRefused(
            f'the document of instance "{document.instance}" has no machine "{machine}"',
            mend=f'add "{machine}" to a role of the instance, or take the instance down here: '
            f"warren down {document.instance}",
        )
    healthy = frozenset(document.controllers) if healthy is None else healthy
    is_controller = isinstance(me, ControllerEntry)
    peers = _controllers_peers(document, me) if isinstance(me, ControllerEntry) else _peers_peers(document, healthy)
    second_keys = rotation.second_keys(document, machine)
    peers += [
        (name, Peer(second_keys[peer.public_key], frozenset(), peer.endpoint))
        for name, peer in peers
        if peer.public_key in second_keys
    ]
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
        forwards=is_controller,
        firewall=_firewall(me),
        hosts=host_lines(document),
        second_keys={peer.public_key: second for _, peer in peers if (second := second_keys.get(peer.public_key))},
    )


def _firewall(me: Entry) -> Firewall:
    if isinstance(me, ControllerEntry):
        return Firewall(me.interface, me.port, forward=True, routes=me.routes)
    return Firewall(me.interface, None, forward=False)


def host_lines(document: Document) -> tuple[HostLine, ...]:
    """Every machine's name, in the order of names."""
    entries: list[Entry] = [*document.controllers.values(), *document.peers.values()]
    return tuple(
        HostLine(document.name_address(entry), f"{entry.name}.{document.domain}")
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


def _controllers_peers(document: Document, me: ControllerEntry) -> list[tuple[MachineName, Peer]]:
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
    return controllers + peers


def _peers_peers(document: Document, healthy: frozenset[MachineName]) -> list[tuple[MachineName, Peer]]:
    """A peer speaks to every controller: for the subnets that it carries, and always for its own address."""
    carried: dict[MachineName, list[IPv6Network]] = {name: [] for name in document.controllers}
    for name, entry in document.controllers.items():
        carried[carrier(name, document.controllers, healthy)].append(entry.subnet)
    return [
        (
            entry.name,
            Peer(
                entry.public_key,
                _allowed_ips(*carried[entry.name], IPv6Network(entry.address), *entry.routes),
                entry.endpoint,
                KEEPALIVE_S,
            ),
        )
        for entry in document.controllers.values()
        if entry.public_key is not None
    ]


def _allowed_ips(*networks: IPv6Network) -> frozenset[AllowedIP]:
    return frozenset(map(AllowedIP.of, networks))


def speaks_first(desired: Desired, public_key: PublicKey) -> bool:
    """Whether this machine starts the handshake with that peer where both could.

    Two controllers know each other's endpoint. Were both to start at one instant, both would wait for REKEY_TIMEOUT
    (5 s), once or several times; so the smaller key speaks and the other waits a moment.
    """
    mutual = desired.listen_port is not None and desired.peers[public_key].endpoint is not None
    return not mutual or desired.public_key is None or desired.public_key < public_key
