"""The longest silence of any pair while a key is replaced under traffic: rotated by phases, and the usual way.

The usual way: the machine gets a new key, the others are told one after the other and then the machine itself, and in
between it is cut off from some. A mesh of 2 controllers and 3 peers over real ssh, all on this computer, in namespaces;
a ping train and a TCP stream between all machines, in both directions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fleet import test_rotation as rotation  # the fleet and the traffic that the tests stand on
from fleet.fleets import Fleet, fleet

_KEYS = (("a peer's key", ("laptop1",)), ("a controller's key", ("server1",)), ("every key", rotation.MACHINES))
_WORDS = ("vars", "generate", "--service", rotation.KEYS, "--regenerate")


def run() -> None:
    """Print the table."""
    with fleet(rotation.INVENTORY) as made:
        made.warren("machines", "install", "--tag", "all")
        made.start_agents(rotation.MACHINES)
        made.warren("machines", "update")
        for what, machines in _KEYS:
            ways = {"usual": _at_once, "by phases": _staged}
            measured = {way: _measure(made, replace, machines) for way, replace in ways.items()}
            print(f"  {what}")
            for kind, name in (("udp", "ping train"), ("tcp", "TCP stream")):
                usual_s, phases_s = (measured[way].longest_silence_s(kind) for way in ways)
                figures = f"usual {usual_s:6.2f} s   by phases {phases_s:6.2f} s   {usual_s / phases_s:6.1f} x"
                print(f"    {name:<12}{figures}", flush=True)
            lost = {way: sum(each["udp"]["lost"] for each in measured[way].pairs.values()) for way in ways}
            resets = {way: len(measured[way].resets) for way in ways}
            print(
                f"    {'lost, reset':<12}" + "   ".join(f"{way} {lost[way]}, {resets[way]}" for way in ways), flush=True
            )


def _measure(
    made: Fleet, replace: Callable[[Fleet, Sequence[str]], None], machines: Sequence[str]
) -> rotation.Measured:
    with rotation.under_traffic(made) as measured:
        replace(made, machines)
    return measured


def _staged(made: Fleet, machines: Sequence[str]) -> None:
    made.warren(*_WORDS, *(word for name in machines for word in ("--machine", name)))
    made.warren("machines", "update")


def _at_once(made: Fleet, machines: Sequence[str]) -> None:
    """Without Warren's own safety, which lets no controller go that nobody would answer any more."""
    for machine in machines:
        made.warren(*_WORDS, "--at-once", "--machine", machine)
        document = made.warren("document", "vpn").out
        for name in [*(name for name in rotation.MACHINES if name != machine), machine]:
            made.write("/run/network.json", document, name)
            made.on(name, "warren", "apply", "--document", "/run/network.json")
    made.warren("machines", "update")
