"""One machine, a real kernel: it becomes what its document says, stays so, and comes out clean; or nothing changes."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from meshes import inventory, mesh
from namespaces import in_namespace, sh, wait_until
from strategies import public_key
from warren.agent import machine as this_machine
from warren.agent import run
from warren.agent.machine import Verdict
from warren.agent.main import main
from warren.errors import DocumentRefused, MachineError
from warren.host import keys
from warren.host.machine import Host
from warren.host.rtnetlink import UNREACHABLE_METRIC
from warren.inventory.model import Inventory
from warren.names import InstanceName, InterfaceName, MachineName
from warren.network.document import Document, encode
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.steps import SetPeers
from warren.wireguard.keys import PublicKey

pytestmark = [pytest.mark.root, pytest.mark.kernel]

T = TypeVar("T")

VPN = InstanceName("vpn")
SERVER1 = MachineName("server1")
WG7 = InterfaceName("wg7")
SNAPSHOT = (
    "(ip -6 addr; ip -6 route) | grep -v fe80; ip link; nft list ruleset; cat /etc/hosts;"
    "sysctl -ae 2>/dev/null | grep ipv6.*forward"
)


def on_a_machine(body: Callable[[Host], T]) -> T:
    """Run the body as root of a fresh machine with files of its own."""
    return in_namespace(lambda: _with_own_files(body))


def _with_own_files(body: Callable[[Host], T]) -> T:
    sh("mount -t tmpfs none /var/lib; mkdir /run/etc; echo '::1 localhost' > /run/etc/hosts;mount --bind /run/etc /etc")
    return body(Host())


def document(
    whole: Inventory, own_key: PublicKey | None, me: MachineName = SERVER1, name: InstanceName = VPN
) -> Document:
    """The instance's document; others' keys follow from their names."""
    texts = {each: public_key(each).text for each in whole.instances[name].members}
    if own_key is not None:
        texts[me] = own_key.text
    return resolve(whole, {name: Stored(public_keys=texts)})[name]


def example(host: Host, controllers: str = "server1 server2", peers: str = "laptop1") -> Document:
    return document(inventory(mesh(controllers, peers)), keys.ensure_key(VPN, host.state))


def apply(host: Host, *documents: Document) -> dict[InstanceName, Verdict]:
    contents = {each.instance: encode(each) for each in documents}
    return this_machine.apply(host, SERVER1, {each.instance: each for each in documents}, contents)


def test_a_machine_becomes_what_its_document_says_and_comes_out_clean() -> None:
    def body(host: Host) -> None:
        before = sh(SNAPSHOT)
        wanted = example(host)
        assert apply(host, wanted)[VPN].error is None
        shown = sh("wg show vpn; ip -6 addr show dev vpn; ip -6 route; cat /etc/hosts; nft list ruleset")
        me = wanted.controllers[SERVER1]
        for expected in (
            "listening port: 51820",
            f"inet6 {me.address}/40 scope global nodad",
            f"unreachable {wanted.base}",
            f"{me.address} server1.vpn",
            "udp dport 51820 accept",
            "persistent keepalive: every 25 seconds",
        ):
            assert expected in shown
        assert shown.count("peer: ") == 2
        assert apply(host, wanted)[VPN] == Verdict((), None, apply(host, wanted)[VPN].names)  # nothing left to do
        this_machine.take_down(host, VPN)
        assert sh(SNAPSHOT) == before
        assert host.instances() == ()
        assert keys.key_path(VPN, host.state).exists()  # a machine that comes back is the same machine

    on_a_machine(body)


def test_every_drift_is_mended_and_nothing_else_is_touched() -> None:
    def body(host: Host) -> None:
        wanted = example(host)
        apply(host, wanted)
        me = wanted.controllers[SERVER1]
        laptop = public_key("laptop1").text
        for damage in (
            "ip link set vpn down",
            "ip link set vpn mtu 1300",
            f"ip -6 addr del {me.address}/40 dev vpn",
            "ip -6 addr add fd00::99/64 dev vpn",
            f"ip -6 route del {wanted.base} dev vpn",
            f"ip -6 route del unreachable {wanted.base} metric {UNREACHABLE_METRIC}",
            "wg set vpn listen-port 1234",
            f"wg set vpn peer {laptop} remove",
            f"wg set vpn peer {laptop} allowed-ips ::/0",
            f"wg set vpn peer {public_key('stranger').text} allowed-ips fd00::/8",
            f"wg set vpn peer {laptop} persistent-keepalive off",
            "nft add rule inet warren-vpn forward accept",
            "nft delete table inet warren-vpn",
            "ip link del vpn",
            ": > /etc/hosts",
            "sed -i s/laptop1/laptop9/ /etc/hosts",
        ):
            sh(damage)
            waiting = this_machine.check(host, SERVER1, {VPN: wanted})[VPN]
            assert waiting.error is None, damage
            assert waiting.steps, damage
            verdict = apply(host, wanted)[VPN]
            assert verdict.error is None, damage
            assert this_machine.check(host, SERVER1, {VPN: wanted})[VPN].steps == (), damage

    on_a_machine(body)


def test_one_peer_more_is_one_peer_touched() -> None:
    def body(host: Host) -> None:
        apply(host, example(host))
        steps = apply(host, example(host, peers="laptop1 laptop2"))[VPN].steps
        changes = [change for step in steps if isinstance(step, SetPeers) for change in step.changes]
        assert [change.public_key for change in changes] == [public_key("laptop2")]

    on_a_machine(body)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_taken_port_is_named_before_anything_is_done(family: socket.AddressFamily) -> None:
    def body(host: Host) -> None:
        wanted = example(host)
        before = sh(SNAPSHOT)
        with socket.socket(family, socket.SOCK_DGRAM) as other:
            other.bind(("", 51820))
            error = apply(host, wanted)[VPN].error
            assert isinstance(error, MachineError)
            assert f"UDP port 51820: Address already in use, by process {os.getpid()} (" in error.what
            assert "settings.port" in error.mend
            assert sh(SNAPSHOT) == before
        assert apply(host, wanted)[VPN].error is None

    on_a_machine(body)


def test_a_port_that_another_wireguard_holds_names_its_interface() -> None:
    def body(host: Host) -> None:
        apply(host, example(host))
        other = mesh("server1", instance="home")
        home = document(inventory(other), keys.ensure_key(other.name, host.state), name=other.name)
        error = apply(host, home)[other.name].error
        assert error is not None
        assert "Address already in use, by WireGuard interface vpn" in error.what

    on_a_machine(body)


def test_a_document_that_cannot_be_followed_changes_nothing() -> None:
    def body(host: Host) -> None:
        wanted = example(host)
        apply(host, wanted)
        before, kept = sh(SNAPSHOT), host.read_document(VPN)
        whole = inventory(mesh("server1 server2", "laptop1 laptop2"))
        for bad, reason in (
            (document(whole, None), "but its own is"),
            (replace(wanted, controllers={**wanted.controllers, SERVER1: replace(
                wanted.controllers[SERVER1], public_key=None)}), "has no key for this machine"),
            (document(inventory(mesh("server2", "laptop1")), None), 'has no machine "server1"'),
        ):  # fmt: skip
            error = apply(host, bad)[VPN].error
            assert isinstance(error, DocumentRefused), reason
            assert reason in error.what
            assert sh(SNAPSHOT) == before
            assert host.read_document(VPN) == kept

    on_a_machine(body)


def test_somebody_elses_interface_of_that_name_is_left_alone() -> None:
    def body(host: Host) -> None:
        sh("ip link add vpn type bridge")
        before = sh(SNAPSHOT)
        error = apply(host, example(host))[VPN].error
        assert isinstance(error, DocumentRefused)
        assert 'the interface "vpn" exists already and is a bridge' in error.what
        assert "settings.interface" in error.mend
        assert sh(SNAPSHOT) == before

    on_a_machine(body)


def test_two_instances_live_side_by_side_and_leave_one_by_one() -> None:
    def body(host: Host) -> None:
        empty = sh(SNAPSHOT)
        home = InstanceName("home")
        instance = mesh("server1", "laptop1", "home")
        controllers = {SERVER1: replace(instance.controllers[SERVER1], port=51821)}
        whole = inventory(mesh("server1", "laptop1"), replace(instance, controllers=controllers))
        documents = [document(whole, keys.ensure_key(name, host.state), name=name) for name in (VPN, home)]
        assert [verdict.error for verdict in apply(host, *documents).values()] == [None, None]
        assert [verdict.steps for verdict in apply(host, *documents).values()] == [(), ()]
        this_machine.take_down(host, VPN)
        # The other one is whole: its unreachable route, its switches, its names.
        assert this_machine.check(host, SERVER1, {home: documents[1]})[home].steps == ()
        this_machine.take_down(host, home)
        assert sh(SNAPSHOT) == empty

    on_a_machine(body)


def test_instances_in_each_others_way_are_refused_together() -> None:
    def body(host: Host) -> None:
        whole = inventory(mesh("server1", "laptop1"), mesh("server1", "laptop1", "home"))
        documents = [
            document(whole, keys.ensure_key(name, host.state), name=name) for name in (VPN, InstanceName("home"))
        ]
        before = sh(SNAPSHOT)
        with pytest.raises(DocumentRefused, match='instances "vpn" and "home" both have the listen port 51820'):
            apply(host, *documents)
        assert sh(SNAPSHOT) == before

    on_a_machine(body)


def test_another_vpns_interface_is_left_alone() -> None:
    def body(host: Host) -> None:
        sh("ip tuntap add vpn mode tun")  # as OpenVPN makes one
        before = sh(SNAPSHOT)
        error = apply(host, example(host))[VPN].error
        assert isinstance(error, DocumentRefused)
        assert "it has neither the key nor an address of it" in error.what
        assert sh(SNAPSHOT) == before

    on_a_machine(body)


def test_a_broken_document_leaves_its_running_mesh_alone() -> None:
    def body(host: Host) -> None:
        home = InstanceName("home")
        apply(host, example(host))
        own_key = keys.ensure_key(home, host.state)
        whole = inventory(replace(mesh("server2", "server1", "home")))
        assert apply(host, document(whole, own_key, name=home))[home].error is None
        before = sh(SNAPSHOT)
        (host.state / home / "network.json").write_text("half a docu")
        documents, refused = this_machine.read_documents(host)
        assert (list(documents), list(refused)) == ([VPN], [home])
        assert this_machine.apply(host, SERVER1, documents)[VPN] == Verdict(
            (), None, this_machine.check(host, SERVER1, documents)[VPN].names
        )
        assert sh(SNAPSHOT) == before
        assert "server1" in subprocess.run(["cat", host.state / "machine.name"], capture_output=True, text=True).stdout
        statuses, refused = this_machine.status(host, SERVER1)
        assert ([each.desired.instance for each in statuses], list(refused)) == ([VPN], [home])

    on_a_machine(body)


def test_what_was_taken_down_meanwhile_does_not_come_back() -> None:
    def body(host: Host) -> None:
        before = sh(SNAPSHOT)
        apply(host, example(host))
        documents, _ = this_machine.read_documents(host)  # as the agent does, which then waits for the lock
        this_machine.take_down(host, VPN)
        assert this_machine.apply(host, SERVER1, documents) == {}
        assert sh(SNAPSHOT) == before

    on_a_machine(body)


@pytest.mark.parametrize("me", ["server1", "laptop1"])
def test_an_interface_of_another_name_takes_the_place_of_the_former(me: str) -> None:
    def body(host: Host) -> None:
        name = MachineName(me)
        before = sh(SNAPSHOT)
        wanted = document(inventory(mesh("server1 server2", "laptop1")), keys.ensure_key(VPN, host.state), name)
        assert this_machine.apply(host, name, {VPN: wanted}, {VPN: encode(wanted)})[VPN].error is None
        renamed = replace(
            wanted,
            controllers={key: replace(each, interface=WG7) for key, each in wanted.controllers.items()},
            peers={key: replace(each, interface=WG7) for key, each in wanted.peers.items()},
        )
        assert this_machine.apply(host, name, {VPN: renamed}, {VPN: encode(renamed)})[VPN].error is None
        assert sh("wg show interfaces").split() == [WG7]
        (host.state / "machine.name").unlink()  # nobody says who this is: `down` knows the interface by its key
        this_machine.take_down(host, VPN)
        assert sh(SNAPSHOT) == before

    on_a_machine(body)


def test_of_a_first_apply_that_fails_nothing_stays() -> None:
    def body(host: Host) -> None:
        wanted = example(host)
        sh("mount -o remount,ro,bind /etc")  # the last step, the names, cannot be done
        before = sh(SNAPSHOT)
        error = apply(host, wanted)[VPN].error
        assert isinstance(error, MachineError)
        assert "/etc/hosts" in str(error)
        assert sh(SNAPSHOT) == before
        assert host.instances() == ()
        sh("mount -o remount,rw,bind /etc")
        assert apply(host, wanted)[VPN].error is None
        sh("mount -o remount,ro,bind /etc; ip link del vpn")
        assert apply(host, example(host, peers="laptop1 laptop2"))[VPN].error is not None
        assert sh("wg show interfaces").split() == ["vpn"]  # a mesh that was there is not given up for its names

    on_a_machine(body)


def test_a_hosts_file_that_is_a_folder_is_an_error_that_says_so() -> None:
    def body(host: Host) -> None:
        sh("rm /etc/hosts; mkdir /etc/hosts")
        error = apply(host, example(host))[VPN].error
        assert isinstance(error, MachineError)
        assert "/etc/hosts" in str(error)
        assert "vpn" not in sh("ip link; nft list ruleset")

    on_a_machine(body)


def test_the_agent_follows_documents_and_leaves_the_mesh_when_it_ends() -> None:
    def body(host: Host) -> None:
        agent = os.fork()
        if agent == 0:
            run.Agent(host, SERVER1, main).run()
            os._exit(0)
        host.write_document(VPN, encode(example(host)))
        wait_until(lambda: "51820" in sh("wg show all listen-port"), what="the interface")
        host.write_document(VPN, encode(example(host, peers="laptop1 laptop2")))
        wait_until(lambda: "laptop2.vpn" in sh("cat /etc/hosts"), what="the changed document")
        (host.state / VPN / "network.json").write_text("half a docu")
        time.sleep(0.2)  # the agent has seen it; what it must not do has no event to wait for
        os.kill(agent, signal.SIGTERM)
        assert os.waitpid(agent, 0)[1] == 0
        assert sh("wg show vpn peers").count("\n") == 3
        assert "laptop2.vpn" in sh("cat /etc/hosts")

    on_a_machine(body)


def test_the_agent_outlives_its_folder() -> None:
    def body(host: Host) -> None:
        host.write_document(VPN, encode(example(host)))
        agent = os.fork()
        if agent == 0:
            run.Agent(host, SERVER1, main).run()
            os._exit(0)
        wait_until(lambda: "laptop1.vpn" in sh("cat /etc/hosts"), what="the mesh")
        sh("mkdir /run/kept; mv /var/lib/warren /run/kept; mount -o remount,ro /var/lib")
        time.sleep(0.2)  # the agent has seen it; what it must not do has no event to wait for
        assert os.waitpid(agent, os.WNOHANG) == (0, 0)
        sh("mount -o remount,rw /var/lib; mv /run/kept/warren /var/lib; ip link set vpn mtu 1300")
        wait_until(lambda: "mtu 1420" in sh("ip link show vpn"), timeout_s=60, what="the mesh as it was")
        os.kill(agent, signal.SIGTERM)
        assert os.waitpid(agent, 0)[1] == 0

    on_a_machine(body)


def test_a_dead_userspace_wireguard_is_started_again() -> None:
    def body(host: Host) -> None:
        wanted = example(host)
        apply(host, wanted)
        if "wireguard" in sh("ip -d link show vpn").split("link/none")[1]:
            pytest.skip("this kernel has WireGuard: there is no process that could die")
        process = wireguard_go()
        os.kill(int(process.name), signal.SIGKILL)
        wait_until(lambda: not process.exists(), what="the end of wireguard-go")
        assert apply(host, wanted)[VPN].error is None
        assert "listening port: 51820" in subprocess.run(["wg", "show"], capture_output=True, text=True).stdout
        # One that loses its link ends by itself, and holds the listen port until then.
        os.kill(int(wireguard_go().name), signal.SIGSTOP)
        sh(f"ip link del vpn; (sleep 0.3; kill -CONT {wireguard_go().name}) >/dev/null 2>&1 &")
        assert apply(host, wanted)[VPN].error is None

    on_a_machine(body)


def wireguard_go() -> Path:
    (process,) = [each for each in Path("/proc").glob("[0-9]*") if (each / "comm").read_text() == "wireguard-go\n"]
    return process
