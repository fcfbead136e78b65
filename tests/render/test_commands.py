"""Steps as commands: what the log says, what can be pasted, and that it works when it is pasted."""

import json
import subprocess
from dataclasses import replace
from ipaddress import IPv6Interface, IPv6Network
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshes import inventory, mesh
from namespaces import in_namespace, sh
from strategies import documents, public_key
from warren.host.machine import Host
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan import firewall, steps
from warren.plan.desired import NOTHING, Desired, Firewall, HostLine, Observed
from warren.plan.diff import diff, removal
from warren.plan.plan import plan
from warren.render.commands import log_lines, script
from warren.wireguard.device import AllowedIP
from warren.wireguard.endpoint import Endpoint

VPN, WG = InstanceName("vpn"), InterfaceName("vpn")
SERVER = MachineName("server1")
KEY = public_key("server1")  # f0CbGzIRw3SZyWGfQq4NKr3uZS69wa8FAta1OaZwQwY=
NAMES = {KEY: SERVER}
ADDRESS = IPv6Interface("fd00::1/56")
BASE = IPv6Network("fd00::/40")
BEHIND = IPv6Network("2001:db8:5::/64")
SUBNET = AllowedIP.of(IPv6Network("fd00:0:0:100::/56"))
OWN = AllowedIP.of(IPv6Network("fd00:0:0:100::1/128"))
HOST = HostLine(ADDRESS.ip, "server1.vpn")
TABLE = Firewall(WG, 51820, True)
ODD = InterfaceName("a b'$")

SET = "wg set vpn peer f0CbGzIR…"

LOG: list[tuple[steps.Step, list[str]]] = [
    (steps.CreateLink(WG), ["ip link add dev vpn type wireguard"]),
    (steps.DeleteLink(WG), ["ip link delete dev vpn"]),
    (steps.SetMtu(WG, 1420), ["ip link set dev vpn mtu 1420"]),
    (steps.SetLinkUp(WG), ["ip link set dev vpn up"]),
    (steps.AddAddress(WG, ADDRESS), ["ip -6 address add fd00::1/56 dev vpn nodad"]),
    (steps.RemoveAddress(WG, ADDRESS), ["ip -6 address delete fd00::1/56 dev vpn"]),
    (steps.AddRoute(WG, BEHIND), ["ip -6 route add 2001:db8:5::/64 dev vpn metric 4096 proto 87"]),
    (steps.RemoveRoute(WG, BEHIND), ["ip -6 route delete 2001:db8:5::/64 dev vpn metric 4096 proto 87"]),
    (steps.AddUnreachable(BASE), ["ip -6 route add unreachable fd00::/40 metric 2147483647 proto 87"]),
    (steps.RemoveUnreachable(BASE), ["ip -6 route delete unreachable fd00::/40 metric 2147483647 proto 87"]),
    (
        steps.SetPrivateKey(VPN, WG, KEY),
        ["wg set vpn private-key /var/lib/warren/vpn/private.key  # whose public key is f0CbGzIR…"],
    ),
    (steps.SetListenPort(WG, 51820), ["wg set vpn listen-port 51820"]),
    (
        steps.SetPeers(
            WG,
            (
                steps.PeerChange(KEY, True, frozenset({OWN, SUBNET}), Endpoint("vpn1.example.com", 51820), 25),
                steps.PeerChange(KEY, endpoint=Endpoint("2001:db8::1", 51820)),
                steps.PeerChange(KEY, allowed_ips=frozenset()),
                steps.PeerChange(KEY, keepalive_s=0),
                steps.PeerChange(KEY, allowed_ips=frozenset({OWN, SUBNET}), gained_ips=frozenset({SUBNET})),
            ),
            (public_key("gone"),),
        ),
        [
            "wg set vpn peer KDu53u8C… remove",
            f"{SET} endpoint vpn1.example.com:51820 persistent-keepalive 25 allowed-ips {SUBNET},{OWN}  # server1",
            f"{SET} endpoint '[2001:db8::1]:51820'  # server1",
            f"{SET} allowed-ips ''  # server1",
            f"{SET} persistent-keepalive off  # server1",
            f"{SET} allowed-ips {SUBNET},{OWN}  # server1",
        ],
    ),
    (
        steps.AwaitHandshake(WG, (KEY, public_key("gone"))),
        ["sleep 1  # server1, KDu53u8C… may speak first: two first messages that cross cost 5 s"],
    ),
    (
        steps.SetSysctl(VPN, "net.ipv6.conf.all.forwarding", "1", remember=True),
        ["sysctl -w net.ipv6.conf.all.forwarding=1"],
    ),
    (steps.RestoreSysctls(VPN), ["# sysctl: what was changed for vpn goes back to what it was"]),
    (steps.LoadTable(VPN, TABLE), ["nft -f -  # table inet warren-vpn, whole"]),
    (steps.DropTable(VPN), ["nft delete table inet warren-vpn"]),
    (steps.AskFirewall(("ufw", "allow", "51820/udp")), ["ufw allow 51820/udp"]),
    (steps.AskFirewall(("firewall-cmd", "b"), ("firewall-cmd", "a")), ["firewall-cmd a || firewall-cmd b"]),
    (steps.WriteHosts(VPN, (HOST,)), ["# /etc/hosts: 1 name of vpn"]),
    (steps.ClearHosts(VPN), ["# /etc/hosts: no names of vpn"]),
]


@pytest.mark.parametrize(("step", "lines"), LOG, ids=lambda value: type(value).__name__)
def test_log_lines(step: steps.Step, lines: list[str]) -> None:
    assert list(log_lines(step, NAMES)) == lines


def test_every_kind_of_step_has_its_commands() -> None:
    assert {type(step) for step, _ in LOG} == set(get_args(steps.Step))


def test_pasted_keys_are_whole() -> None:
    for step, lines in LOG:
        if "f0CbGzIR…" in "".join(lines):
            text = script([step], {})
            assert KEY.text in text
            assert "…" not in text


def test_the_table_is_pasted_in_nfts_own_language() -> None:
    assert script([steps.LoadTable(VPN, TABLE)], {}) == (
        "nft -f - <<'END'\n"
        "add table inet warren-vpn\n"
        "delete table inet warren-vpn\n"
        "add table inet warren-vpn\n"
        "add chain inet warren-vpn input { type filter hook input priority 0; policy accept; }\n"
        "add rule inet warren-vpn input udp dport 51820 accept\n"
        "add chain inet warren-vpn forward { type filter hook forward priority 0; policy accept; }\n"
        'add rule inet warren-vpn forward iifname "vpn" oifname "vpn" accept\n'
        'add rule inet warren-vpn forward iifname "vpn" drop\n'
        'add rule inet warren-vpn forward oifname "vpn" drop\n'
        "END\n"
    )


def test_the_hosts_block_is_pasted_in_place_of_the_one_before() -> None:
    assert script([steps.WriteHosts(VPN, (HOST,))], {}) == (
        "sed -i '/^# BEGIN warren vpn /,/^# END warren vpn$/d' /etc/hosts\n"
        "cat >> /etc/hosts <<'END'\n"
        "# BEGIN warren vpn (kept by warren: edits between these two lines are lost)\n"
        "fd00::1 server1.vpn\n"
        "# END warren vpn\n"
        "END\n"
    )


@settings(deadline=None, max_examples=25)  # each starts a shell
@given(documents(), st.data())
def test_a_script_is_one_that_a_shell_can_read(document: Document, data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from([*document.controllers, *document.peers]))
    desired = plan(document, machine)
    text = script(diff(NOTHING, desired), desired.peer_names)
    assert subprocess.run(["sh", "-n"], input=text.encode(), check=False).returncode == 0
    for peer in desired.peers.values():
        assert text.count(peer.public_key.text) >= 1


def in_a_shell(function: str) -> list[str]:
    """The words that a shell makes of what `script` wrote of a step with an odd interface name."""
    return sh(f"ip() {{ printf '%s\\n' \"$@\"; }}; {function}").splitlines()


def test_odd_interface_names_are_quoted() -> None:
    command = script([steps.SetMtu(ODD, 1420)], {})
    assert in_a_shell(command) == ["link", "set", "dev", str(ODD), "mtu", "1420"]


PRIVATE_KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="  # the example of wg(8); belongs to nobody


def _desired(machine: str, interface: str = "vpn") -> tuple[Desired, str]:
    """What `machine` should be, with the key above, and what takes it there, as commands."""
    own = sh(f"echo {PRIVATE_KEY} | wg pubkey").strip()
    vpn = mesh("server1 server2", "laptop1 laptop2")
    controllers = {
        name: replace(each, endpoint=Endpoint(f"192.0.2.{i}", 51820), interface=InterfaceName(interface))
        for i, (name, each) in enumerate(vpn.controllers.items(), 1)
    }
    keys = {name: public_key(name).text for name in vpn.members} | {MachineName(machine): own}
    document = resolve(inventory(replace(vpn, controllers=controllers)), {VPN: Stored(public_keys=keys)})[VPN]
    desired = plan(document, MachineName(machine))
    seen = Observed(sysctls={"net.ipv6.conf.default.force_forwarding": "0"})
    return desired, script(diff(seen, desired), desired.peer_names)


def _paste(machine: str, interface: str = "vpn") -> None:
    sh("mkdir /run/etc; cp -a /etc/. /run/etc/; mount --bind /run/etc /etc; mount -t tmpfs tmpfs /var/lib")
    sh(f"mkdir -p /var/lib/warren/vpn; umask 077; echo {PRIVATE_KEY} > /var/lib/warren/vpn/private.key")
    before = sh("cat /etc/hosts")
    desired, commands = _desired(machine, interface)
    sh(f"exec > /run/said 2>&1\n{commands}")  # wireguard-go keeps what it was given as stdout

    links = json.loads(sh("ip -j address show"))
    (link,) = [link for link in links if link["ifname"] == interface]
    assert link["mtu"] == desired.mtu_bytes
    assert "UP" in link["flags"]
    seen = {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each["scope"] == "global"}
    assert seen == {str(address) for address in desired.addresses}
    assert str(desired.base) in sh("ip -6 route show type unreachable")

    own, *peers = [
        line.split("\t") for line in subprocess.check_output(["wg", "show", interface, "dump"], text=True).splitlines()
    ]
    assert desired.public_key is not None
    assert own[:2] == [PRIVATE_KEY, desired.public_key.text]
    assert desired.listen_port in (None, int(own[2]))
    assert {peer[0] for peer in peers} == {key.text for key in desired.peers}
    for key, _, endpoint, allowed_ips, _, _, _, keepalive in peers:
        (wanted,) = [peer for peer in desired.peers.values() if peer.public_key.text == key]
        assert endpoint == (str(wanted.endpoint) if wanted.endpoint else "(none)")
        assert set(allowed_ips.split(",")) == set(map(str, wanted.allowed_ips))
        assert keepalive == str(wanted.keepalive_s)

    table = json.loads(sh("nft -j list table inet warren-vpn"))["nftables"]
    assert firewall.canonical(table) == firewall.expected(desired.instance, desired.firewall)
    assert sh("cat /etc/hosts").splitlines()[-len(desired.hosts) - 1 : -1] == list(map(str, desired.hosts))
    forwarding = sh(
        "cat /proc/sys/net/ipv6/conf/all/forwarding; cat /proc/sys/net/ipv6/conf/*/force_forwarding || true"
    )
    assert ("1" in forwarding) is desired.forwards

    observed = Host().observe(desired.instance, desired.interface, frozenset())
    assert diff(observed, desired) == ()
    sh(script(removal(observed, desired.instance, desired.interface), {}))
    assert interface not in sh("ip link show")
    assert sh("nft list tables; ip -6 route show type unreachable") == ""
    assert sh("cat /etc/hosts") == before


@pytest.mark.root
@pytest.mark.parametrize("machine", ["server1", "server2", "laptop1"])
def test_what_is_pasted_becomes_the_plan(machine: str) -> None:
    in_namespace(_paste, machine)


@pytest.mark.root
@pytest.mark.parametrize("interface", ["wg.0", "wg*", "b'c", "$HOME"])
def test_odd_interface_names_work_when_pasted(interface: str) -> None:
    in_namespace(_paste, "server1", interface)


def _load(interface: str) -> None:
    table = Firewall(InterfaceName(interface), 51820, True)
    sh(script([steps.LoadTable(VPN, table)], {}))
    assert firewall.canonical(json.loads(sh("nft -j list table inet warren-vpn"))["nftables"]) == firewall.expected(
        VPN, table
    )


@pytest.mark.root
def test_a_table_for_a_name_that_nft_cannot_write() -> None:
    in_namespace(_load, 'a"b')
