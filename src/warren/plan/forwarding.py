"""The sysctls that a machine needs: IPv6 on its mesh interface, and forwarding on a controller.

Linux 6.17 and later forward per interface: `force_forwarding` on the mesh interface alone lets packets that come in by
it through, and nothing else (Documentation/networking/ip-sysctl.rst; replies come in by the same interface). It goes
when the interface goes. Earlier kernels have only the switch for the whole machine, `all.forwarding`, and turning that
on makes every interface a router's: default routes that came from router advertisements are deleted at once, and
advertisements are ignored from then on, unless the interface has `accept_ra` 2 beforehand. It is used as well where
networks lie behind the machine: what comes back from there comes in by other interfaces.

Keys are spelled as sysctl(8) does: dots between the parts, and a slash for a dot within an interface's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from warren.names import InterfaceName
from warren.plan.desired import Desired, Observed
from warren.plan.steps import RestoreSysctls, SetSysctl

_TREE = "net.ipv6.conf"
EVERYTHING = "all"  # of the kernel's two scopes that are no interfaces
NEW_INTERFACES = "default"


def key(interface: str, setting: str) -> str:
    return f"{_TREE}.{interface.replace('.', '/')}.{setting}"


ALL_FORWARDING = key(EVERYTHING, "forwarding")


def relevant(interface: InterfaceName) -> tuple[str, ...]:
    """The keys to observe on every machine."""
    own = [
        key(name, setting) for name in (interface, NEW_INTERFACES) for setting in ("disable_ipv6", "force_forwarding")
    ]
    return (ALL_FORWARDING, *own)


def relevant_for_whole_machine(interfaces: Iterable[str]) -> tuple[str, ...]:
    """The keys to observe as well where the whole machine has to forward; `interfaces` are all that it has."""
    return tuple(
        key(interface, setting)
        for interface in interfaces
        if interface not in (EVERYTHING, "lo")  # no advertisement comes in by lo
        for setting in ("accept_ra", "forwarding")
    )


def is_per_interface(sysctls: Mapping[str, str]) -> bool:
    """Whether this kernel can forward for one interface alone."""
    return key(NEW_INTERFACES, "force_forwarding") in sysctls


def steps(desired: Desired, observed: Observed) -> Iterator[SetSysctl | RestoreSysctls]:
    """What is to be set, in this order; to be done when the interface is there and before it has addresses."""
    wanted = {"disable_ipv6": "0"}
    per_interface = is_per_interface(observed.sysctls)
    if per_interface:
        wanted["force_forwarding"] = "1" if desired.forwards else "0"
    for setting, value in wanted.items():
        if _own(observed, desired.interface, setting) not in (value, None):
            yield SetSysctl(desired.instance, key(desired.interface, setting), value)
    if desired.forwards and (needs_whole_machine(desired) or not per_interface):
        yield from _whole_machine(desired, observed)
    elif observed.sysctls_before:
        yield RestoreSysctls(desired.instance)


def needs_whole_machine(desired: Desired) -> bool:
    """Whether packets have to be let through that come in by other interfaces than the mesh's own."""
    return bool(desired.firewall.routes)


def _own(observed: Observed, interface: InterfaceName, setting: str) -> str | None:
    """What the interface has, or will have once it is made; None: this kernel has no such setting."""
    new = observed.sysctls.get(key(NEW_INTERFACES, setting))
    is_there = observed.link is not None and observed.device is not None  # a dead one is made anew
    return observed.sysctls.get(key(interface, setting), new) if is_there else new


def _whole_machine(desired: Desired, observed: Observed) -> Iterator[SetSysctl]:
    def remembered(name: str, value: str) -> SetSysctl:
        return SetSysctl(desired.instance, name, value, remember=True)

    turning_on = observed.sysctls.get(ALL_FORWARDING) != "1"
    own = key(desired.interface, "accept_ra")
    for name, value in sorted(observed.sysctls.items()):
        forwarding = name.removesuffix("accept_ra") + "forwarding"
        if not name.endswith(".accept_ra") or name == own:
            continue
        if turning_on and observed.sysctls.get(forwarding) == "1":
            # A router's already. Turning the whole machine off again, one day, would forget that.
            if forwarding not in observed.sysctls_before:
                yield remembered(forwarding, "1")
        elif value == "1" and (turning_on or name in observed.sysctls_before):
            yield remembered(name, "2")
    if turning_on or ALL_FORWARDING not in observed.sysctls_before:
        # Where it is on already, this notes that this instance needs it as well.
        yield remembered(ALL_FORWARDING, "1")
