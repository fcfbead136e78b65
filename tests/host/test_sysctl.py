"""Sysctls of the real kernel: forwarding that does no harm, and switches that go back to what they were."""

import json
import socket
import struct
import subprocess
from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from namespaces import Namespace, drop_root, in_namespace, sh, wait_until
from warren.errors import KernelError, MachineError
from warren.host import files, sysctl
from warren.names import InstanceName, InterfaceName, MachineName
from warren.plan import forwarding
from warren.plan.desired import Desired, Firewall, Observed, ObservedLink
from warren.plan.forwarding import ALL_FORWARDING, key
from warren.plan.steps import SetSysctl
from warren.wireguard.device import ObservedDevice
from warren.wireguard.keys import PublicKey

pytestmark = pytest.mark.root

VPN, HOME = InstanceName("vpn"), InstanceName("home")


def desired(interface: str, forwards: bool = True, instance: InstanceName = VPN) -> Desired:
    name = InterfaceName(interface)
    network, table = IPv6Network("fd00::/40"), Firewall(name, None, forwards)
    me, public_key = MachineName("server1"), PublicKey(bytes(32))
    return Desired(
        instance, me, name, public_key, None, 1420, frozenset(), frozenset(), network, {}, {}, forwards, table, ()
    )


def converge(wanted: Desired) -> list[str]:
    """Observe, perform what is to be done, and see that nothing is left; the keys that were set."""
    done = []
    for step in forwarding.steps(wanted, observe(wanted)):
        if isinstance(step, SetSysctl):
            sysctl.perform(step)
            done.append(step.key)
        else:
            sysctl.restore(step.instance)
            done.append("restore")
    assert list(forwarding.steps(wanted, observe(wanted))) == []
    return done


def observe(wanted: Desired) -> Observed:
    there = Path(f"/sys/class/net/{wanted.interface}").exists()
    return Observed(
        link=ObservedLink("tun", 1420, True) if there else None,
        device=ObservedDevice(None, 0, {}) if there else None,
        sysctls=sysctl.observe(wanted.interface),
        sysctls_before=sysctl.before(wanted.instance),
    )


def without_force_forwarding() -> None:
    """From here on this process takes the kernel for one before 6.17; the rest of the kernel is real."""
    forwarding.is_per_interface = lambda sysctls: False


def values(*keys: str) -> list[str]:
    return [sysctl._read(each) for each in keys]


def everything() -> str:
    return sh("sysctl -a -r '^net.ipv6.conf' 2>/dev/null | grep -v stable_secret | sort")


# --- forwarding for one interface


def need_force_forwarding() -> None:
    if not Path("/proc/sys/net/ipv6/conf/default/force_forwarding").exists():
        pytest.skip("this kernel is older than Linux 6.17: it has no force_forwarding")


def test_the_mesh_interface_forwards_and_no_other() -> None:
    need_force_forwarding()
    with Namespace() as controller, Namespace() as one, Namespace() as two, Namespace() as elsewhere:
        # A bridge stands for the mesh interface: what comes in by it can go out by it, to another machine.
        controller.sh(
            "ip link add vpn.1 type bridge; ip link set vpn.1 up; ip -6 address add fd01::1/64 dev vpn.1 nodad"
        )
        for machine, name, there in ((one, "one", "fd01::2/128"), (two, "two", "fd01::3/128")):
            controller.connect(machine, "fd0a::1/64", there, names=(name, "eth0"))
            controller.sh(f"ip link set {name} master vpn.1")
            machine.sh("ip -6 route replace fd01::1 dev eth0; ip -6 route add default via fd01::1")
        controller.connect(elsewhere, "fd02::1/64", "fd02::2/64", names=("lan", "eth0"))
        elsewhere.sh("ip -6 route add default via fd02::1")

        wait_until(lambda: one.run(answers, "fd01::1") and elsewhere.run(answers, "fd02::1"), what="the controller")
        assert not one.run(answers, "fd01::3")
        assert controller.run(converge, desired("vpn.1")) == ["net.ipv6.conf.vpn/1.force_forwarding"]
        wait_until(lambda: one.run(answers, "fd01::3"), what="a packet from mesh to mesh")
        assert not elsewhere.run(answers, "fd01::3")
        assert controller.run(values, ALL_FORWARDING) == ["0"]
        assert controller.run(converge, desired("vpn.1")) == []
        assert controller.run(converge, desired("vpn.1", forwards=False)) == ["net.ipv6.conf.vpn/1.force_forwarding"]
        assert not one.run(answers, "fd01::3")


def answers(address: str) -> bool:
    return subprocess.run(["ping", "-6", "-n", "-c", "1", "-W", "1", address], capture_output=True).returncode == 0


def test_the_machines_switch_turned_off_by_somebody_shows_and_is_mended() -> None:
    need_force_forwarding()

    def check() -> None:
        sh("ip link add vpn type bridge")
        own = "net.ipv6.conf.vpn.force_forwarding"
        assert converge(desired("vpn")) == [own]
        sh("sysctl -q -w net.ipv6.conf.all.forwarding=1; sysctl -q -w net.ipv6.conf.all.forwarding=0")
        assert converge(desired("vpn")) == [own]

    in_namespace(check)


def test_ipv6_is_switched_on_for_the_mesh_interface_alone() -> None:
    def check() -> None:
        sh("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1")
        own = "net.ipv6.conf.vpn.disable_ipv6"
        steps = list(forwarding.steps(desired("vpn", forwards=False), observe(desired("vpn"))))
        assert steps == [SetSysctl(VPN, own, "0")]
        sh("ip link add vpn type bridge")
        with pytest.raises(RuntimeError):
            sh("ip -6 address add fd00::1/64 dev vpn")
        assert converge(desired("vpn", forwards=False)) == [own]
        sh("ip -6 address add fd00::1/64 dev vpn")
        assert values("net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6") == ["1", "1"]

    in_namespace(check)


# --- forwarding for the whole machine, and its default route from a router's advertisements


def advertise() -> None:
    """What a router says: I am one, for half an hour (RFC 4861, section 4.2)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
        router.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))


def default_route() -> str:
    return sh("ip -6 route show default")


class Routed:
    """A machine whose uplink is `wan.5` and learns its default route there."""

    def __enter__(self) -> "Routed":
        self.machine, self.router = Namespace().__enter__(), Namespace().__enter__()
        self.machine.connect(self.router, "fd0a::1/64", "fd0a::2/64", names=("wan.5", "eth0"))
        self.hear("the first advertisement")
        return self

    def __exit__(self, *reason: object) -> None:
        self.machine.__exit__(None, None, None)
        self.router.__exit__(None, None, None)

    def hear(self, what: str) -> None:
        wait_until(lambda: self.router.run(advertise) or self.machine.run(default_route), what=what)

    def is_deaf(self) -> bool:
        """Ten advertisements, and no route."""
        self.machine.sh("ip -6 route flush root default")
        for _ in range(10):
            self.router.run(advertise)
        return self.machine.run(default_route) == ""


@pytest.mark.kernel  # a kernel before 6.17 by nature
def test_what_a_plain_switch_would_do_to_the_default_route() -> None:
    """The reason for all of this: were it not so, the tests below would prove nothing."""
    with Routed() as it:
        it.machine.sh("sysctl -q -w net.ipv6.conf.all.forwarding=1")
        assert it.machine.run(default_route) == ""
        assert it.is_deaf()


@pytest.mark.kernel  # a kernel before 6.17 by nature
def test_a_machine_that_forwards_keeps_its_default_route_and_gets_it_renewed() -> None:
    with Routed() as it:
        before = it.machine.run(everything)

        def start() -> list[str]:
            without_force_forwarding()
            return converge(desired("vpn"))

        assert it.machine.run(start) == [
            "net.ipv6.conf.default.accept_ra",
            "net.ipv6.conf.wan/5.accept_ra",
            "net.ipv6.conf.all.forwarding",
        ]
        assert it.machine.run(values, ALL_FORWARDING) == ["1"]
        assert it.machine.run(default_route) != ""
        it.machine.sh("ip -6 route flush root default")
        it.hear("an advertisement, while it forwards")

        def leave() -> None:
            sysctl.restore(VPN)

        it.machine.run(leave)
        assert it.machine.run(default_route) != ""
        assert it.machine.run(everything) == before
        it.machine.sh("ip -6 route flush root default")
        it.hear("an advertisement, after it forwards no more")
        assert it.machine.sh("ls -A /run/warren 2>/dev/null || true") == ""


@pytest.mark.kernel  # a kernel before 6.17 by nature
def test_where_the_switch_is_on_it_is_not_written_again() -> None:
    """Writing 1 over 1 would take the default route of an interface that is a host's by somebody's choice."""
    with Routed() as it:
        it.machine.sh("sysctl -q -w net.ipv6.conf.all.forwarding=1; sysctl -q -w net.ipv6.conf.wan/5.forwarding=0")
        it.hear("an advertisement, on the one interface that is a host's")

        def check() -> None:
            without_force_forwarding()
            before = everything()
            assert converge(desired("vpn")) == [ALL_FORWARDING]
            assert default_route() != ""
            sysctl.restore(VPN)
            assert everything() == before
            assert default_route() != ""

        it.machine.run(check)


def test_a_router_among_the_interfaces_is_one_again_afterwards() -> None:
    def check() -> None:
        without_force_forwarding()
        sh("ip link add lan type bridge; ip link add wan type bridge; sysctl -q -w net.ipv6.conf.lan.forwarding=1")
        before = everything()
        converge(desired("vpn"))
        assert values("net.ipv6.conf.lan.accept_ra", "net.ipv6.conf.wan.accept_ra") == ["1", "2"]
        sysctl.restore(VPN)
        assert everything() == before

    in_namespace(check)


def test_a_controller_that_became_a_peer_puts_the_switch_back() -> None:
    def check() -> None:
        without_force_forwarding()
        before = everything()
        converge(desired("vpn"))
        assert converge(desired("vpn", forwards=False)) == ["restore"]
        assert everything() == before

    in_namespace(check)


# --- the memory


def test_the_last_instance_that_leaves_restores() -> None:
    def check() -> None:
        without_force_forwarding()
        before = everything()
        converge(desired("vpn"))
        assert sysctl.before(HOME) == {}
        assert converge(desired("home", instance=HOME)) == [ALL_FORWARDING]
        assert sysctl.before(HOME) == sysctl.before(VPN)
        assert sysctl.before(VPN)[ALL_FORWARDING] == "0"
        sysctl.restore(VPN)
        assert sysctl.before(VPN) == {}
        assert values(ALL_FORWARDING) == ["1"]
        assert converge(desired("home", instance=HOME)) == []
        sysctl.restore(HOME)
        assert everything() == before
        sysctl.restore(HOME)

    in_namespace(check)


def test_an_instance_that_needed_nothing_restores_nothing() -> None:
    def check() -> None:
        without_force_forwarding()
        converge(desired("vpn"))
        sysctl.restore(HOME)
        assert values(ALL_FORWARDING) == ["1"]
        assert sysctl.before(VPN)

    in_namespace(check)


def test_what_somebody_changed_since_stays() -> None:
    def check() -> None:
        without_force_forwarding()
        sh("ip link add wan type bridge")
        converge(desired("vpn"))
        sh("sysctl -q -w net.ipv6.conf.wan.accept_ra=0; ip link add new type bridge")
        sysctl.restore(VPN)
        assert values(ALL_FORWARDING, "net.ipv6.conf.wan.accept_ra") == ["0", "0"]

    in_namespace(check)


def test_an_interface_that_is_gone_is_no_hindrance() -> None:
    def check() -> None:
        without_force_forwarding()
        sh("ip link add wan type bridge")
        converge(desired("vpn"))
        sh("ip link delete wan")
        sysctl.restore(VPN)
        assert values(ALL_FORWARDING) == ["0"]
        assert not sysctl.MEMORY.exists()

    in_namespace(check)


def test_the_value_before_is_on_record_before_the_switch_is_touched() -> None:
    def check() -> None:
        seen = []
        write_text = Path.write_text

        def watched(self: Path, text: str) -> int:
            noted = json.loads(sysctl.MEMORY.read_bytes())
            seen.append((noted["instances"], noted["changes"][ALL_FORWARDING], self.read_text().strip()))
            return write_text(self, text)

        Path.write_text = watched  # type: ignore[method-assign, assignment]  # only looks
        sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "1", remember=True))
        assert seen == [(["vpn"], {"before": "0", "made": "1"}, "0")]

    in_namespace(check)


def test_a_memory_that_cannot_be_written_leaves_the_switch_alone() -> None:
    def check() -> None:
        sh("mkdir /run/warren; mount -t tmpfs -o ro none /run/warren")
        with pytest.raises(MachineError, match="Read-only"):
            sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "1", remember=True))
        assert values(ALL_FORWARDING) == ["0"]

    in_namespace(check)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"instances": ["vpn"], "changes": {"a": 1}}', '{"changes": {}}'])
def test_a_memory_that_is_none_is_an_error_and_no_empty_memory(content: str) -> None:
    def check() -> None:
        files.make_folder(sysctl.MEMORY.parent, mode=0o755)
        sysctl.MEMORY.write_text(content)
        acts: list[Callable[[], object]] = [
            lambda: sysctl.before(VPN),
            lambda: sysctl.restore(VPN),
            lambda: sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "1", remember=True)),
        ]
        for act in acts:
            with pytest.raises(MachineError) as caught:
                act()
            assert caught.value.where == str(sysctl.MEMORY)
            assert ALL_FORWARDING in caught.value.mend
        assert values(ALL_FORWARDING) == ["0"]

    in_namespace(check)


# --- what the kernel refuses


def test_a_kernel_without_ipv6_is_said_to_be_one() -> None:
    def check() -> None:
        sh("mount -t tmpfs none /proc/sys/net")  # as ipv6.disable=1 leaves it: there is no net/ipv6
        assert sysctl.observe(InterfaceName("vpn")) == {}
        (step,) = forwarding.steps(desired("vpn"), observe(desired("vpn")))
        assert isinstance(step, SetSysctl)
        with pytest.raises(KernelError, match="No such file") as caught:
            sysctl.perform(step)
        assert "ipv6.disable=1" in caught.value.mend
        assert not sysctl.MEMORY.exists()

    in_namespace(check)


def test_proc_sys_that_is_read_only() -> None:
    def check() -> None:
        sh("mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys")
        with pytest.raises(KernelError) as caught:
            sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "1"))
        assert caught.value.command == "sysctl -w net.ipv6.conf.all.forwarding=1"
        assert "container" in caught.value.mend
        sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "0"))  # is so already

    in_namespace(check)


def test_without_root() -> None:
    def check() -> None:
        drop_root()
        with pytest.raises(KernelError) as caught:
            sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "1"))
        assert "as root" in caught.value.mend

    in_namespace(check)


def test_a_value_that_the_kernel_refuses_or_bends() -> None:
    def check() -> None:
        with pytest.raises(KernelError, match="Invalid argument"):
            sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "yes"))
        with pytest.raises(KernelError, match="asked 01, found 1 after it"):
            sysctl.perform(SetSysctl(VPN, ALL_FORWARDING, "01"))

    in_namespace(check)


def test_a_dot_in_an_interfaces_name() -> None:
    def check() -> None:
        sh("ip link add wan.5 type bridge")
        sysctl.perform(SetSysctl(VPN, key("wan.5", "accept_ra"), "2"))
        assert Path("/proc/sys/net/ipv6/conf/wan.5/accept_ra").read_text() == "2\n"
        assert sh("sysctl -n net.ipv6.conf.wan/5.accept_ra") == "2\n"

    in_namespace(check)
