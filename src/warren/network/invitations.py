"""Invitations: a one-time key by which somebody may reach a controller, hand in a public key, and do nothing else.

In the vars they stand beside the keys of the machine that is invited, one a line; in the document, so that controllers
know them. The private half is in the line that the operator hands over, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network

from warren.names import MachineName
from warren.wireguard.keys import PublicKey

OPEN = ""
USED, WITHDRAWN = "used", "withdrawn"
KEPT_S = 86400  # after its end controllers still know an invitation, so that they can say why they refuse it

_GUESTS = 0xFF << 64  # of a /56; machines have zero there (addresses.peer_address), so no range of theirs is touched
_GUESTS_BITS = 64


@dataclass(frozen=True, slots=True)
class Invitation:
    """`public_key`: of the one-time key. `closed`: why it gets nothing any more, whatever the time; OPEN: it may."""

    machine: MachineName
    public_key: PublicKey
    expires_unix_s: int
    closed: str = OPEN

    def is_kept(self, now_unix_s: float) -> bool:
        """Whether controllers still know it."""
        return now_unix_s < self.expires_unix_s + KEPT_S


def guests(subnet: IPv6Network) -> IPv6Network:
    """Where in a controller's subnet those are who were invited."""
    return IPv6Network((int(subnet.network_address) | _GUESTS, _GUESTS_BITS))


def guest_address(subnet: IPv6Network, public_key: PublicKey) -> IPv6Address:
    """The one address that the holder of the one-time key has at this controller."""
    low = int.from_bytes(sha256(b"warren guest " + public_key).digest()[:8], "big")
    return IPv6Address(int(guests(subnet).network_address) | low)


def invitations_text(invitations: Iterable[Invitation]) -> str:
    """As the vars keep those of one machine."""
    lines = [f"{each.public_key.text} {each.expires_unix_s} {each.closed or 'open'}" for each in invitations]
    return "\n".join(sorted(lines))


def parse_invitations(machine: MachineName, text: str) -> tuple[Invitation, ...]:
    """What `invitations_text` wrote; ValueError says what is wrong with it."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) != 3 or words[2] not in ("open", USED, WITHDRAWN):
            raise ValueError(f"{line[:60]!r} is no invitation: a key, a time, and open, {USED} or {WITHDRAWN}")
        if not words[1].isascii() or not words[1].isdigit():
            raise ValueError(f"{words[1][:20]!r} is no time in seconds")
        closed = OPEN if words[2] == "open" else words[2]
        found.append(Invitation(machine, PublicKey.parse(words[0]), int(words[1]), closed))
    return tuple(found)
