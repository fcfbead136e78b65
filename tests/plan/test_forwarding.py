"""Which sysctls are set, and that setting them is the end of it."""

from dataclasses import replace
from ipaddress import IPv6Network
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.names import InstanceName, InterfaceName, MachineName
from warren.plan.desired import Desired, Firewall, Observed, ObservedLink
from warren.plan.forwarding import ALL_FORWARDING, key, relevant, steps
from warren.plan.steps import RestoreSysctls, SetSysctl
from warren.wireguard.device import ObservedDevice
from warren.wireguard.keys import PublicKey

VPN = InstanceName("vpn")
LINK, DEVICE = ObservedLink("wireguard", 1420, True), ObservedDevice(None, 0, {})


def desired(forwards: bool, interface: str = "vpn") -> Desired:
    name = InterfaceName(interface)
    return Desired(
        VPN,
        MachineName("server1"),
        name,
        PublicKey(bytes(32)),
        None,
        1420,
        frozenset(),
        frozenset(),
        IPv6Network("fd00::/40"),
        {},
        {},
        forwards,
        Firewall(name, None, forwards),
        (),
    )


CONTROLLER, PEER = desired(True), desired(False)


def observed(sysctls: dict[str, str], before: dict[str, str] | None = None, *, link: bool = True) -> Observed:
    return Observed(
        link=LINK if link else None,
        device=DEVICE if link else None,
        sysctls=MappingProxyType(sysctls),
        sysctls_before=MappingProxyType(before or {}),
    )


NEW = {ALL_FORWARDING: "0", key("default", "force_forwarding"): "0", key("default", "disable_ipv6"): "0"}
OLD = {
    ALL_FORWARDING: "0",
    key("default", "disable_ipv6"): "0",
    key("eth0.5", "accept_ra"): "1",
    key("eth0.5", "forwarding"): "0",
}


def commands(wanted: Desired, seen: Observed) -> list[str]:
    return [
        f"{each.key}={each.value}{' remember' if each.remember else ''}" if isinstance(each, SetSysctl) else "restore"
        for each in steps(wanted, seen)
    ]


def test_keys_are_spelled_as_sysctl_spells_them() -> None:
    assert key("eth0.5", "accept_ra") == "net.ipv6.conf.eth0/5.accept_ra"
    assert ALL_FORWARDING == "net.ipv6.conf.all.forwarding"
    assert "net.ipv6.conf.vpn/2.force_forwarding" in relevant(InterfaceName("vpn.2"))


def test_a_new_kernel_forwards_for_the_mesh_interface_alone() -> None:
    assert commands(CONTROLLER, observed(NEW, link=False)) == ["net.ipv6.conf.vpn.force_forwarding=1"]
    there = NEW | {key("vpn", "force_forwarding"): "0"}
    assert commands(CONTROLLER, observed(there)) == ["net.ipv6.conf.vpn.force_forwarding=1"]
    assert commands(CONTROLLER, observed(there | {key("vpn", "force_forwarding"): "1"})) == []


def test_a_dead_interface_is_made_anew_so_what_it_has_does_not_count() -> None:
    seen = replace(observed(NEW | {key("vpn", "force_forwarding"): "1"}), device=None)
    assert commands(CONTROLLER, seen) == ["net.ipv6.conf.vpn.force_forwarding=1"]


def test_a_controller_that_became_a_peer_forwards_no_more() -> None:
    seen = observed(NEW | {key("vpn", "force_forwarding"): "1"})
    assert commands(PEER, seen) == ["net.ipv6.conf.vpn.force_forwarding=0"]
    assert commands(PEER, observed(OLD | {ALL_FORWARDING: "1"}, {ALL_FORWARDING: "0"})) == ["restore"]


def test_a_peer_needs_nothing() -> None:
    for sysctls in (NEW, OLD, {}):
        assert commands(PEER, observed(sysctls)) == []


def test_ipv6_is_switched_on_where_new_interfaces_have_it_off() -> None:
    off = NEW | {key("default", "disable_ipv6"): "1"}
    assert commands(PEER, observed(off, link=False)) == ["net.ipv6.conf.vpn.disable_ipv6=0"]
    assert commands(PEER, observed(off | {key("vpn", "disable_ipv6"): "0"})) == []
    assert commands(PEER, observed(NEW | {key("vpn", "disable_ipv6"): "1"})) == ["net.ipv6.conf.vpn.disable_ipv6=0"]


def test_an_old_kernel_keeps_its_router_advertisements_before_it_becomes_a_router() -> None:
    assert commands(CONTROLLER, observed(OLD, link=False)) == [
        "net.ipv6.conf.eth0/5.accept_ra=2 remember",
        "net.ipv6.conf.all.forwarding=1 remember",
    ]


@pytest.mark.parametrize(
    ("accept_ra", "forwarding", "expected"),
    [
        ("0", "0", []),  # somebody else reads the advertisements (systemd-networkd, NetworkManager), or nobody
        ("2", "0", []),
        ("1", "1", ["net.ipv6.conf.eth0/5.forwarding=1 remember"]),  # ignores them already
        ("2", "1", ["net.ipv6.conf.eth0/5.forwarding=1 remember"]),
    ],
)
def test_interfaces_that_would_not_lose_their_route_keep_their_accept_ra(
    accept_ra: str, forwarding: str, expected: list[str]
) -> None:
    seen = OLD | {key("eth0.5", "accept_ra"): accept_ra, key("eth0.5", "forwarding"): forwarding}
    assert commands(CONTROLLER, observed(seen)) == [*expected, "net.ipv6.conf.all.forwarding=1 remember"]


def test_where_the_switch_is_on_already_only_the_need_is_noted() -> None:
    router = OLD | {ALL_FORWARDING: "1", key("eth0.5", "forwarding"): "1"}
    assert commands(CONTROLLER, observed(router)) == ["net.ipv6.conf.all.forwarding=1 remember"]
    assert commands(CONTROLLER, observed(router, {ALL_FORWARDING: "1"})) == []


def test_what_somebody_sets_back_is_set_again() -> None:
    before = {ALL_FORWARDING: "0", key("eth0.5", "accept_ra"): "1"}
    seen = OLD | {ALL_FORWARDING: "1", key("eth0.5", "forwarding"): "1", key("eth0.5", "accept_ra"): "1"}
    assert commands(CONTROLLER, observed(seen, before)) == ["net.ipv6.conf.eth0/5.accept_ra=2 remember"]
    assert commands(CONTROLLER, observed(OLD, before)) == [
        "net.ipv6.conf.eth0/5.accept_ra=2 remember",
        "net.ipv6.conf.all.forwarding=1 remember",
    ]


def test_the_mesh_interface_itself_hears_no_advertisements() -> None:
    seen = OLD | {key("vpn", "accept_ra"): "1", key("vpn", "forwarding"): "0"}
    assert not any("conf.vpn." in each for each in commands(CONTROLLER, observed(seen)))


VALUES = {"accept_ra": "012", "forwarding": "01", "disable_ipv6": "01", "force_forwarding": "01"}


@st.composite
def machines(draw: st.DrawFn, link: bool, settings: tuple[str, ...] = tuple(VALUES)) -> dict[str, str]:
    """A kernel has a setting for all interfaces or for none."""
    interfaces = ["default", "eth0", "eth0.5", *(["vpn"] if link else [])]
    supported = [each for each in settings if each != "force_forwarding" or draw(st.booleans())]
    return {ALL_FORWARDING: draw(st.sampled_from("01"))} | {
        key(interface, setting): draw(st.sampled_from(VALUES[setting]))
        for interface in interfaces
        for setting in supported
    }


def is_set(sysctls: dict[str, str], name: str, value: str) -> dict[str, str]:
    """What becomes of it: what is so already is not written, and the machine's switch takes every interface along."""
    if sysctls.get(name) == value:
        return sysctls
    taken_along = [each for each in sysctls if each.endswith(".forwarding")] if name == ALL_FORWARDING else []
    return sysctls | dict.fromkeys(taken_along, value) | {name: value}


@given(st.data(), st.booleans(), st.booleans())
def test_after_the_steps_nothing_is_left_to_do(data: st.DataObject, forwards: bool, link: bool) -> None:
    sysctls = data.draw(machines(link))
    wanted = CONTROLLER if forwards else PEER
    now, before = dict(sysctls), dict[str, str]()
    for step in steps(wanted, observed(sysctls, link=link)):
        assert isinstance(step, SetSysctl)
        if step.remember:
            before.setdefault(step.key, now[step.key])
        now = is_set(now, step.key, step.value)
    for name in relevant(wanted.interface):  # the kernel makes what is missing from its defaults, with the link
        default = key("default", name.rpartition(".")[2])
        if default in now:
            now.setdefault(name, now[default])
    assert list(steps(wanted, observed(now, before))) == []
    if forwards:
        assert now.get(key("vpn", "force_forwarding"), now[ALL_FORWARDING]) == "1"


@given(machines(False, ("accept_ra", "forwarding")))
def test_no_interface_stops_hearing_advertisements(sysctls: dict[str, str]) -> None:
    def hears(values: dict[str, str], interface: str) -> bool:
        accepts, forwards = values.get(key(interface, "accept_ra")), values.get(key(interface, "forwarding"), "0")
        return accepts == "2" or (accepts == "1" and forwards == "0")

    now = dict(sysctls)
    for step in steps(CONTROLLER, observed(sysctls)):
        assert isinstance(step, SetSysctl)
        heard = [each for each in ("eth0", "eth0.5", "default") if hears(now, each)]
        now = is_set(now, step.key, step.value)
        assert all(hears(now, each) for each in heard), step


def test_restore_names_the_instance() -> None:
    assert list(steps(PEER, observed(OLD, {ALL_FORWARDING: "0"}))) == [RestoreSysctls(VPN)]
