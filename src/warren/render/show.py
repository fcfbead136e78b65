"""Addresses, roles and names of every machine: as a tree for programs (`show --json`), as a table for people."""

from __future__ import annotations

from collections.abc import Iterable

from warren.names import MachineName
from warren.network.addresses import peer_address, suffix_text
from warren.network.document import ControllerEntry, Document, PeerEntry
from warren.render.columns import columns


def shown_tree(documents: Iterable[Document]) -> dict[str, object]:
    """What `warren show --json` prints; programs rely on its shape."""
    return {
        "instances": {
            document.instance: {
                "base": str(document.base),
                "domain": document.domain,
                "machines": _machines(document),
            }
            for document in documents
        }
    }


def _machines(document: Document) -> dict[str, object]:
    texts = _AddressTexts(document)
    machines: dict[str, object] = {
        name: {
            "role": "controller",
            "subnet": str(controller.subnet),
            "address": str(controller.address),
            "name": f"{name}.{document.domain}",
            "endpoint": str(controller.endpoint),
            **({"routes": list(map(str, controller.routes))} if controller.routes else {}),
        }
        for name, controller in document.controllers.items()
    }
    for name, peer in document.peers.items():
        machines[name] = {
            "role": "peer",
            "suffix": suffix_text(peer.suffix),
            "controller": peer.controller,
            "addresses": texts.of(peer),
            "name": f"{name}.{document.domain}",
        }
    return machines


class _AddressTexts:
    """The texts of many peers' addresses: str(IPv6Address) of each would be most of the time that `show` takes."""

    def __init__(self, document: Document) -> None:
        self._prefixes = []
        for name, controller in document.controllers.items():
            groups = hexadecimal_groups(int(controller.subnet.network_address) >> 64)
            self._prefixes.append((name, controller.subnet, ":".join(groups) if "0" not in groups else None))

    def of(self, peer: PeerEntry) -> dict[MachineName, str]:
        groups = hexadecimal_groups(peer.suffix)
        suffix = ":".join(groups) if "0" not in groups else None
        return {
            # Only zero groups can be shortened to `::` (RFC 5952); without one, the text is its groups.
            name: f"{prefix}:{suffix}" if prefix and suffix else str(peer_address(subnet, peer.suffix))
            for name, subnet, prefix in self._prefixes
        }


def hexadecimal_groups(number: int) -> list[str]:
    """64 bits as the four groups of an address's half, without leading zeros."""
    return [f"{number >> shift & 0xFFFF:x}" for shift in (48, 32, 16, 0)]


def shown_table(document: Document) -> str:
    """One instance for people. Every address stands whole, one a line, so that it can be copied or searched."""
    head = f"{document.instance}   {document.base}   {counted(document)}\n"
    controllers = [("CONTROLLER", "NAME", "ADDRESS", "SUBNET", "ENDPOINT")]
    controllers += [_controller_row(document, controller) for controller in document.controllers.values()]
    text = f"{head}\n{columns(controllers, '  ')}"
    if document.peers:
        texts = _AddressTexts(document)
        peers = [("PEER", "NAME", "ADDRESS", "THROUGH")]
        for peer in document.peers.values():
            peers.extend(_peer_rows(document, peer, texts))
        text += f"\n{columns(peers, '  ')}"
    return text


def counted(document: Document) -> str:
    """`2 controllers, 3 peers`."""
    return f"{number_of(len(document.controllers), 'controller')}, {number_of(len(document.peers), 'peer')}"


def number_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _controller_row(document: Document, controller: ControllerEntry) -> tuple[str, str, str, str, str]:
    name = f"{controller.name}.{document.domain}"
    return controller.name, name, str(controller.address), str(controller.subnet), str(controller.endpoint)


def _peer_rows(document: Document, peer: PeerEntry, texts: _AddressTexts) -> list[tuple[str, str, str, str]]:
    """The address that the name points to comes first, the name beside it alone; the machine stands in every row."""
    addresses = texts.of(peer)
    designated = peer.controller
    first = (peer.name, f"{peer.name}.{document.domain}", addresses.pop(designated), designated)
    return [first, *((peer.name, "", address, controller) for controller, address in addresses.items())]
