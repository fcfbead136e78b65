"""What makes a plan impossible on this machine: found before the first effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from warren.errors import DocumentRefused, MachineError
from warren.plan.desired import Desired, Observed
from warren.wireguard.keys import PublicKey

OUR_LINK_KINDS = ("wireguard", "tun")  # the kernel's own, and what userspace implementations make


def check(desired: Desired, observed: Observed, own_keys: Sequence[PublicKey], port_holder: str | None) -> None:
    """Raise DocumentRefused or MachineError if this machine cannot become `desired`.

    `own_keys`: of the private keys that this machine has for the instance; while its key is rotated, two.
    `port_holder`: who but the instance's own device holds the listen port; None: nobody.
    """
    place = f"{desired.instance} on {desired.machine}"
    if not own_keys:
        raise DocumentRefused(
            "this machine has no private key for the instance",
            where=place,
            mend=f"warren vars keygen {desired.instance}, and store the public key that it prints",
        )
    if desired.public_key not in own_keys:
        known = "no key" if desired.public_key is None else f"key {desired.public_key}"
        raise DocumentRefused(
            f"the document has {known} for this machine, but its own is {own_keys[0]}",
            where=place,
            mend=f"warren vars set {desired.machine} wireguard-keys-{desired.instance}/publickey {own_keys[0].text}, "
            "and a new document",
        )
    if observed.link is not None and observed.link.kind not in OUR_LINK_KINDS:
        raise DocumentRefused(
            f'the interface "{desired.interface}" exists already and is a {observed.link.kind or "device"}, '
            "not WireGuard's",
            where=place,
            mend="give the instance another name on this machine: settings.interface",
        )
    if observed.link is not None and not _is_own_link(desired, observed, own_keys):
        raise DocumentRefused(
            f'the interface "{desired.interface}" exists already and is not this instance\'s: '
            "it has neither the key nor an address of it",
            where=place,
            mend="give the instance another name on this machine: settings.interface; "
            f"or, if nobody needs what is there: ip link delete {desired.interface}",
        )
    if port_holder is not None:
        raise MachineError(
            f"UDP port {desired.listen_port}: Address already in use, by {port_holder}",
            where=place,
            mend=f"stop that, or set another port: roles.controller.machines.{desired.machine}.settings.port",
        )


def _is_own_link(desired: Desired, observed: Observed, own_keys: Sequence[PublicKey]) -> bool:
    """Whether Warren made it, perhaps with an earlier key, or not to the end; others have VPNs as well."""
    if observed.device is not None and observed.device.public_key in (None, *own_keys):
        return True
    return any(address.ip in desired.base for address in observed.addresses)


def check_together(plans: Iterable[Desired]) -> None:
    """Raise DocumentRefused if two instances of this machine are in each other's way."""
    for one, other in combinations(plans, 2):
        for what, mine, theirs in (
            ("interface", one.interface, other.interface),
            ("listen port", one.listen_port, other.listen_port),
            ("base", one.base, other.base),
        ):
            if mine == theirs and mine is not None:
                raise DocumentRefused(
                    f'instances "{one.instance}" and "{other.instance}" both have the {what} {mine}',
                    where=str(one.machine),
                    mend=f"the inventory decides: give one of them another {what}, or take one down here",
                )
