"""What a topology picture shows of a mesh, whatever it is drawn with.

Bounded: of ten thousand peers some are drawn and the others counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from warren.names import MachineName
from warren.network.document import ControllerEntry, Document, PeerEntry
from warren.render.show import number_of


@dataclass(frozen=True, slots=True)
class Group:
    """A controller and the peers whose names point into its subnet; `hidden` of them are counted, not drawn."""

    controller: ControllerEntry
    peers: tuple[PeerEntry, ...]
    hidden: int

    @property
    def nodes(self) -> int:
        return len(self.peers) + (self.hidden > 0)


@dataclass(frozen=True, slots=True)
class Picture:
    """One mesh to draw. Every peer connects to every controller: `every_link` False draws the designated ones only.

    `controller_links` are the pairs of controllers to connect; empty where they would be too many.
    """

    document: Document
    groups: tuple[Group, ...]
    controller_links: tuple[tuple[MachineName, MachineName], ...]
    every_link: bool

    @property
    def nodes(self) -> int:
        return sum(group.nodes for group in self.groups)

    @property
    def left_out(self) -> str:
        """What is true of the mesh and not drawn, in words; "" where all is drawn."""
        parts = []
        if not self.every_link:
            parts.append("every peer also connects to every other controller")
        if len(self.groups) > 1 and not self.controller_links:
            parts.append("all controllers connect to each other")
        return ", ".join(parts)


def picture(document: Document, peers: int, links: int) -> Picture:
    """The mesh with at most so many `peers` and, beside one for each of them, at most so many `links`."""
    groups = _groups(document, peers)
    pairs = tuple(combinations(document.controllers, 2))
    nodes = sum(group.nodes for group in groups)
    every_link = len(pairs) + nodes * len(groups) <= links
    if not every_link and len(pairs) + nodes > links:
        pairs = ()
    return Picture(document, groups, pairs, every_link)


def _groups(document: Document, limit: int) -> tuple[Group, ...]:
    members: dict[MachineName, list[PeerEntry]] = {name: [] for name in document.controllers}
    for peer in document.peers.values():
        members[peer.controller].append(peer)
    share = limit if len(document.peers) <= limit else limit // len(members)
    return tuple(
        Group(controller, tuple(members[name][:share]), len(members[name][share:]))
        for name, controller in document.controllers.items()
    )


def more(group: Group) -> str:
    """`+9,950 peers`."""
    return f"+{number_of(group.hidden, 'peer')}"
