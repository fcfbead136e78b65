"""Real WireGuard devices, the kernel's and a userspace implementation's, read and changed; `wg` says the same."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeAlias

import pytest

from namespaces import Namespace, drop_root, in_namespace, sh, wait_until
from warren.errors import KernelError, MachineError
from warren.host import rtnetlink
from warren.host.machine import Host
from warren.host.wireguard import NO_KEY, Device, PeerChange, open_device
from warren.host.wireguard_kernel import ALLOWED_IPS_IN_PART
from warren.names import InterfaceName
from warren.plan import steps
from warren.wireguard import x25519
from warren.wireguard.device import AllowedIP, ObservedPeer
from warren.wireguard.endpoint import SocketAddress
from warren.wireguard.keys import PresharedKey, PrivateKey, PublicKey
from warren.wireguard.preshared import NO_PRESHARED_KEY, NOBODYS, fingerprint

pytestmark = pytest.mark.root

NewDevice: TypeAlias = Callable[[InterfaceName], Device]

VPN = InterfaceName("vpn")
A, B, C = (PublicKey(bytes([n]).ljust(32, b"\0")) for n in (3, 5, 7))


def networks(*texts: str) -> frozenset[AllowedIP]:
    return frozenset(AllowedIP.of(ip_network(text)) for text in texts)


def where(address: str, port: int = 51820) -> SocketAddress:
    return SocketAddress(ip_address(address), port)


def the_device() -> Device:
    device = open_device(VPN)
    assert device is not None
    return device


def test_a_new_device_is_empty(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN).read()
        assert (device.public_key, device.peers) == (None, {})

    in_namespace(check)


def test_the_private_key_shows_as_public_key(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        key = PrivateKey(os.urandom(32))
        device.set_private_key(key)
        public_key = device.read().public_key
        assert public_key == x25519.public_key(key)
        assert public_key.text == sh("wg show vpn public-key").strip()

    in_namespace(check)


def test_the_listen_port(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        device.set_listen_port(51871)
        assert device.read().listen_port == 51871 == int(sh("wg show vpn listen-port"))

    in_namespace(check)


def test_a_taken_port_is_refused_at_the_latest_when_the_link_goes_up(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as holder:
            holder.bind(("::", 51871))
            with pytest.raises(KernelError, match="Address already in use") as refused:
                _listen(device, 51871)
            assert refused.value.code == errno.EADDRINUSE
        _listen(device, 51871)
        assert device.read().listen_port == 51871

    in_namespace(check)


def test_peers_come_back_as_they_were_set(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        device.set_private_key(PrivateKey(os.urandom(32)))
        device.set_peers(
            [
                PeerChange(A, True, networks("10.0.0.0/8", "fd28::/56", "::/0"), where("192.0.2.1", 1), 25),
                PeerChange(B, True, networks("fd28:1::1/128"), where("2001:db8::5", 65535)),
                PeerChange(C, True, frozenset(), keepalive_s=65535),
            ]
        )
        assert device.read().peers == {
            A: ObservedPeer(A, networks("10.0.0.0/8", "fd28::/56", "::/0"), where("192.0.2.1", 1), 25),
            B: ObservedPeer(B, networks("fd28:1::1/128"), where("2001:db8::5", 65535)),
            C: ObservedPeer(C, frozenset(), keepalive_s=65535),
        }
        assert _wg_peers() == {
            A.text: ["192.0.2.1:1", {"10.0.0.0/8", "fd28::/56", "::/0"}, "25"],
            B.text: ["[2001:db8::5]:65535", {"fd28:1::1/128"}, "off"],
            C.text: ["(none)", {"(none)"}, "65535"],
        }

    in_namespace(check)


def test_a_preshared_key_of_somebody_else_is_noticed_and_not_shown(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        device.set_peers([PeerChange(A, True), PeerChange(B, True)])
        text = sh(f"umask 077; wg genpsk | tee /run/psk; wg set vpn peer {A.text} preshared-key /run/psk").strip()
        raw = PresharedKey.parse(text).reveal()
        peers = device.read().peers
        assert (peers[A].preshared, peers[B].preshared) == (fingerprint(raw), NO_PRESHARED_KEY)
        assert not any(form in repr(peers) for form in (text[:20], raw.hex()[:20], repr(raw)[2:20]))

    in_namespace(check)


def test_a_preshared_key_is_set_exchanged_and_taken_away(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        first, second = PresharedKey(bytes([1] * 32)), PresharedKey(bytes(range(32)))
        device.set_peers([PeerChange(A, True, preshared_key=first), PeerChange(B, True), PeerChange(C, True)])

        def told() -> dict[str, str]:
            lines = sh("wg show vpn preshared-keys").splitlines()
            return {line.split()[0]: line.split()[1] for line in lines}

        assert told() == {A.text: first.reveal_text(), B.text: "(none)", C.text: "(none)"}
        device.set_peers([PeerChange(A, preshared_key=second), PeerChange(B, preshared_key=first)])
        device.set_peers([PeerChange(A, keepalive_s=25)])  # what is left out stays
        assert told() == {A.text: second.reveal_text(), B.text: first.reveal_text(), C.text: "(none)"}
        names = {key: peer.preshared for key, peer in device.read().peers.items()}
        assert names == {A: fingerprint(second.reveal()), B: fingerprint(first.reveal()), C: NO_PRESHARED_KEY}
        device.set_peers([PeerChange(A, preshared_key=NO_KEY)])
        assert told() == {A.text: "(none)", B.text: first.reveal_text(), C.text: "(none)"}

    in_namespace(check)


def test_what_a_change_leaves_out_stays(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        whole = ObservedPeer(A, networks("10.0.0.0/8"), where("192.0.2.1"), 25)
        device.set_peers([PeerChange(A, True, whole.allowed_ips, whole.endpoint, whole.keepalive_s)])
        device.set_peers([PeerChange(A)])
        assert device.read().peers == {A: whole}
        device.set_peers([PeerChange(A, keepalive_s=0)])
        assert device.read().peers == {A: whole._replace(keepalive_s=0)}
        device.set_peers([PeerChange(A, allowed_ips=networks("10.0.0.0/9", "fd00::/8"))])
        assert device.read().peers[A].allowed_ips == networks("10.0.0.0/9", "fd00::/8")
        device.set_peers([PeerChange(A, allowed_ips=frozenset())])
        device.set_peers([PeerChange(A, endpoint=where("192.0.2.2"))])
        assert device.read().peers == {A: ObservedPeer(A, frozenset(), where("192.0.2.2"))}

    in_namespace(check)


def test_a_change_of_a_peer_that_is_gone_does_not_bring_it_back(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        device.set_peers([PeerChange(A, True)])
        device.set_peers([PeerChange(B, allowed_ips=networks("10.0.0.0/8"), endpoint=where("192.0.2.1"))], removed=[C])
        assert device.read().peers.keys() == {A}

    in_namespace(check)


def test_allowed_ips_move_from_one_peer_to_another(new_device: NewDevice) -> None:
    """As takeover does it: who gains them is told of them alone, and who had them loses them by that."""

    def check() -> None:
        device = new_device(VPN)
        own, shared, others = networks("fd28:1::1/128"), networks("fd28:1::/56"), networks("fd28:2::/56")
        device.set_peers([PeerChange(A, True, own | shared), PeerChange(B, True, others)])
        device.set_peers([PeerChange(B, allowed_ips=others | shared, gained_ips=shared)])
        peers = device.read().peers
        assert (peers[A].allowed_ips, peers[B].allowed_ips) == (own, others | shared)
        device.set_peers([PeerChange(A, allowed_ips=own), PeerChange(B, allowed_ips=others | shared)])
        assert device.read().peers == peers

    in_namespace(check)


def test_a_peer_with_more_allowed_ips_than_a_message_holds(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        many = frozenset(AllowedIP(b"\xfd" + n.to_bytes(15, "big"), 128) for n in range(2 * ALLOWED_IPS_IN_PART + 7))
        device.set_peers([PeerChange(A, True, many, where("192.0.2.1"), 25), PeerChange(B, True, keepalive_s=5)])
        assert device.read().peers == {
            A: ObservedPeer(A, many, where("192.0.2.1"), 25),
            B: ObservedPeer(B, frozenset(), keepalive_s=5),
        }
        fewer = frozenset(sorted(many)[: ALLOWED_IPS_IN_PART + 1])
        device.set_peers([PeerChange(A, allowed_ips=fewer)])
        assert device.read().peers[A].allowed_ips == fewer

    in_namespace(check)


def test_many_peers(new_device: NewDevice) -> None:
    """Several messages in one direction, several parts in the other."""

    def check() -> None:
        device = new_device(VPN)
        changes = [
            PeerChange(PublicKey(os.urandom(31) + b"\0"), True, networks(f"fd28:0:{n:x}::/96", f"fd28:1:{n:x}::/96"))
            for n in range(1500)
        ]
        device.set_peers(changes)
        assert {key: peer.allowed_ips for key, peer in device.read().peers.items()} == {
            change.public_key: change.allowed_ips for change in changes
        }
        device.set_peers([], removed=[change.public_key for change in changes[1:]])
        assert device.read().peers.keys() == {changes[0].public_key}

    in_namespace(check)


def test_without_root(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        drop_root()
        for ask in (device.read, lambda: device.set_listen_port(5), lambda: device.set_peers([PeerChange(A, True)])):
            with pytest.raises(KernelError, match="mend: run this as root"):
                ask()

    in_namespace(check)


def test_an_interface_that_is_gone(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        rtnetlink.delete_link(VPN)
        wait_until(lambda: open_device(VPN) is None)
        wait_until(lambda: not any(Path("/run/wireguard").iterdir()), what="the end of the userspace implementation")
        for ask in (device.read, lambda: device.set_listen_port(5), lambda: device.set_peers([], [A])):
            with pytest.raises(KernelError) as refused:
                ask()
            assert refused.value.code == errno.ENODEV

    in_namespace(check)


class TestSessions:
    """Two machines with a real handshake between them."""

    def test_an_unchanged_peer_keeps_session_endpoint_and_counters(self, new_device: NewDevice) -> None:
        with Namespace() as left, Namespace() as right:
            _, other = _mesh(left, right, new_device)
            _ping(left)
            before = left.run(_read_peer, other)

            left.run(_change_everything_but, other)

            after = left.run(_read_peer, other)
            assert after.handshake_unix_s == before.handshake_unix_s > 0
            assert (after.endpoint, after.allowed_ips) == (before.endpoint, before.allowed_ips)
            assert after.received_bytes >= before.received_bytes > 0
            assert after.sent_bytes >= before.sent_bytes > 0
            _ping(left)
            assert left.run(_read_peer, other).handshake_unix_s == before.handshake_unix_s

    def test_its_allowed_ips_and_keepalive_change_within_the_session(self, new_device: NewDevice) -> None:
        with Namespace() as left, Namespace() as right:
            _, other = _mesh(left, right, new_device)
            _ping(left)
            before = left.run(_read_peer, other)

            change = PeerChange(other, allowed_ips=networks("fd28::2/128", "fd28:5::/56"), keepalive_s=0)
            left.run(_set_peers, [change])

            _ping(left)
            after = left.run(_read_peer, other)
            assert after.handshake_unix_s == before.handshake_unix_s > 0
            assert after.allowed_ips == change.allowed_ips

    def test_preshared_keys_come_change_and_go_within_the_session(self, new_device: NewDevice) -> None:
        """One end after the other, as an update does it; the handshakes after that have them."""
        with Namespace() as left, Namespace() as right:
            own, other = _mesh(left, right, new_device)
            _ping(left)
            before = left.run(_read_peer, other)

            for key in (PresharedKey(os.urandom(32)), PresharedKey(os.urandom(32)), NO_KEY):
                right.run(_set_peers, [PeerChange(own, preshared_key=key)])
                _ping(left)  # though the ends have different ones
                left.run(_set_peers, [PeerChange(other, preshared_key=key)])
                within = left.run(_read_peer, other)
                assert within.handshake_unix_s == before.handshake_unix_s > 0
                assert within.received_bytes > before.received_bytes
                assert within.preshared == right.run(_read_peer, own).preshared == fingerprint(key.reveal())

                change = PeerChange(other, True, networks("fd28::2/128"), where("fd99::2"), preshared_key=key)
                left.run(_set_peers, [change], [other])
                _ping(left)  # by a handshake that has it
                before = left.run(_read_peer, other)

    def test_removed_and_added_in_one_call_it_starts_anew(self, new_device: NewDevice) -> None:
        with Namespace() as left, Namespace() as right:
            _, other = _mesh(left, right, new_device)
            _ping(left)

            renewed = PeerChange(other, True, networks("fd28::2/128"), where("fd99::2"))
            left.run(_set_peers, [renewed], [other])

            peer = left.run(_read_peer, other)
            assert (peer.handshake_unix_s, peer.received_bytes) == (0, 0)
            _ping(left)
            assert left.run(_read_peer, other).handshake_unix_s > 0


def _listen(device: Device, port: int) -> None:
    device.set_listen_port(port)
    rtnetlink.set_up(VPN)


def _wg_peers() -> dict[str, list[object]]:
    """Public key -> endpoint, AllowedIPs, keepalive, as `wg` shows them."""
    peers = (line.split("\t") for line in sh("wg show vpn dump").splitlines()[1:])
    return {fields[0]: [fields[2], set(fields[3].split(",")), fields[7]] for fields in peers}


def _mesh(left: Namespace, right: Namespace, new_device: NewDevice) -> tuple[PublicKey, PublicKey]:
    """fd28::1 on the left and fd28::2 on the right; the left one speaks first. Their public keys."""
    left.connect(right, "fd99::1/64", "fd99::2/64")
    left_key, right_key = left.run(_prepare, new_device, "fd28::1"), right.run(_prepare, new_device, "fd28::2")
    right.run(_set_peers, [PeerChange(left_key, True, networks("fd28::1/128"))])
    left.run(_set_peers, [PeerChange(right_key, True, networks("fd28::2/128"), where("fd99::2"), 25)])
    return left_key, right_key


def _prepare(new_device: NewDevice, address: str) -> PublicKey:
    key = PrivateKey(os.urandom(32))
    device = new_device(VPN)
    device.set_private_key(key)
    _listen(device, 51820)
    sh(f"ip -6 address add {address}/64 dev vpn nodad")
    return x25519.public_key(key)


def _set_peers(changes: list[PeerChange], removed: list[PublicKey] | None = None) -> None:
    the_device().set_peers(changes, removed or [])


def _read_peer(key: PublicKey) -> ObservedPeer:
    return the_device().read().peers[key]


def _change_everything_but(untouched: PublicKey) -> None:
    """Peers come, change, take each other's AllowedIPs, and go."""
    device = the_device()
    device.set_peers([PeerChange(key, True, networks(f"fd28:{n}::/56")) for n, key in enumerate((A, B, C))])
    device.set_peers([PeerChange(A, allowed_ips=networks("fd28:1::/56"), keepalive_s=5)], removed=[C])
    device.set_peers([], removed=[A])
    assert device.read().peers.keys() == {B, untouched}


def _ping(namespace: Namespace) -> None:
    namespace.sh("ping -6 -c 3 -i 0.02 -W 20 fd28::2")


def test_a_session_that_is_begun_anew_has_the_preshared_key_that_a_program_said(new_device: NewDevice) -> None:
    def check() -> None:
        device = new_device(VPN)
        key = PresharedKey(bytes(range(32)))
        name = fingerprint(key.reveal())
        device.set_peers([PeerChange(A, True, preshared_key=key)])
        step = steps.SetPeers(VPN, (steps.PeerChange(A, True, frozenset(), preshared=name),), (A,))
        with pytest.raises(MachineError, match=f"has no preshared key {name}"):
            Host(Path("/run/state")).perform(step, {})
        assert device.read().peers[A].preshared == name  # nothing was done
        Host(Path("/run/state"), preshared_keys={name: key}).perform(step, {})
        assert device.read().peers[A].preshared == name
        nobodys = steps.SetPeers(VPN, (steps.PeerChange(B, True, frozenset(), preshared=NOBODYS),))
        Host(Path("/run/state")).perform(nobodys, {})
        assert device.read().peers[B].preshared not in (NO_PRESHARED_KEY, NOBODYS, name)

    in_namespace(check)
