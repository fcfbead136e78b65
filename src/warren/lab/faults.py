"""What can be wrong between a machine and the internet. All of it is done outside of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from warren.errors import UsageError
from warren.lab.underlay import Site

LONGEST_DELAY_MS = 60_000
RELAY_QUEUE_PACKETS = 10_000  # of the device; the relay's own is as long
_LOSS_STEPS = 100_000  # a thousandth of a percent


@dataclass(frozen=True, slots=True)
class Faults:
    """Of one machine's link, in each direction alike. The default is a link without faults."""

    cut: bool = False  # nothing passes, and nobody is told
    loss_percent: float = 0.0
    delay_ms: float = 0.0

    def __str__(self) -> str:
        parts = ["cut"] * self.cut
        if self.loss_percent:
            parts.append(f"loss {self.loss_percent:g}%")
        if self.delay_ms:
            parts.append(f"delay {self.delay_ms:g}ms")
        return ", ".join(parts)


HEALTHY = Faults()


def parse_loss(text: str) -> float:
    """Percent, from `20%` or `20`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%?", text.strip())
    if not found or float(found[1]) > 100:
        raise UsageError(f"{text!r} is no loss", mend="write it as 20%, between 0% and 100%")
    return float(found[1])


def parse_delay(text: str) -> float:
    """Milliseconds, from `50ms`, `0.5s` or `50`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s)?", text.strip())
    milliseconds = float(found[1]) * (1000 if found[2] == "s" else 1) if found else -1.0
    if not 0 <= milliseconds <= LONGEST_DELAY_MS:
        raise UsageError(f"{text!r} is no delay", mend="write it as 50ms or 0.5s, at most 60s")
    return milliseconds


def drop_rules(faults: Iterable[tuple[Site, Faults]]) -> str:
    """For `nft -f` in the internet: the whole of what is dropped there."""
    lines: dict[str, list[str]] = {"iifname": [], "oifname": []}
    for site, fault in faults:
        if fault.cut or fault.loss_percent == 100:
            condition = ""
        elif fault.loss_percent:
            condition = f"numgen random mod {_LOSS_STEPS} < {round(fault.loss_percent * _LOSS_STEPS / 100)} "
        else:
            continue
        for direction, rules in lines.items():
            rules.append(f'    {direction} "{site.link}" {condition}drop')
    return "\n".join(
        [
            "table inet faults",
            "delete table inet faults",
            "table inet faults {",
            "  chain from_machines {",
            "    type filter hook prerouting priority raw;",
            *lines["iifname"],
            "  }",
            "  chain to_machines {",
            "    type filter hook postrouting priority srcnat + 10;",
            *lines["oifname"],
            "  }",
            "}",
            "",
        ]
    )


def relay_device(site: Site) -> str:
    return f"delay{site.number}"


def detour(site: Site, version: int) -> str:
    """For `ip -4 -batch` or `ip -6 -batch` in the internet: all packets of the machine pass through its relay.

    A relay hands a packet back where it took it from. What then is for the machine goes to it; a packet from it goes
    on to its target, which may have a relay of its own.
    """
    device, into, out = relay_device(site), *_tables(site)
    own = [address for address in site.addresses if address.version == version]
    lines = [
        f"link set {device} txqueuelen {RELAY_QUEUE_PACKETS} up",
        f"route add default dev {device} table {into}",
        *(f"route add {address} dev {site.link} table {out}" for address in own),
        f"rule add iif {site.link} lookup {into} pref 1000",
        f"rule add iif {device} lookup {out} pref 1001",
        *(f"rule add to {address} lookup {into} pref 1002" for address in own),
    ]
    return "".join(f"{line}\n" for line in lines)


def without_detour(site: Site) -> str:
    """For `ip -4 -batch` and `ip -6 -batch`; right as well where there is no detour."""
    return "".join(f"rule flush table {table}\nroute flush table {table}\n" for table in _tables(site))


def _tables(site: Site) -> tuple[int, int]:
    """Routing tables: into the relay, out of it to the machine."""
    return 1_000_000 + 2 * site.number, 1_000_001 + 2 * site.number
