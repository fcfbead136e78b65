"""Which controller carries which subnet: a pure function of the owner and of who is healthy.

No coordination: machines that see the same health agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from warren.names import MachineName


def carrier(owner: MachineName, controllers: Iterable[MachineName], healthy: frozenset[MachineName]) -> MachineName:
    """The owner while it is healthy, else the first healthy controller of the owner's succession, else the owner."""
    if owner in healthy:
        return owner
    return next((name for name in succession(owner, controllers) if name in healthy), owner)


def succession(owner: MachineName, controllers: Iterable[MachineName]) -> list[MachineName]:
    """The order in which others take over from `owner`, by rendezvous hashing.

    A different order for each owner spreads the load of one that is lost; a controller that joins or leaves changes
    nothing between the others (Thaler and Ravishankar, 1998).
    """
    return sorted((name for name in controllers if name != owner), key=lambda name: _weight(owner, name), reverse=True)


def _weight(owner: MachineName, candidate: MachineName) -> bytes:
    return sha256(f"{owner}\0{candidate}".encode()).digest()
