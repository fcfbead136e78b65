"""WireGuard interfaces made and taken away, whichever implementation this machine has."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from namespaces import drop_root, in_namespace, sh, wait_until
from warren.errors import KernelError
from warren.host import rtnetlink, wireguard, wireguard_process
from warren.host.wireguard import PeerChange
from warren.names import InterfaceName
from warren.wireguard.device import AllowedIP
from warren.wireguard.keys import PublicKey

pytestmark = pytest.mark.root

VPN, OFFICE = InterfaceName("vpn"), InterfaceName("office")
SOCKET = Path("/run/wireguard/vpn.sock")
KEY = PublicKey(bytes(range(32)))


@pytest.mark.kernel
def test_an_interface_comes_works_and_goes_without_a_trace() -> None:
    def check() -> None:
        before = sh("ip link; ip -6 route; ls /run/wireguard"), _processes()
        wireguard.create(VPN)
        link = rtnetlink.links()[VPN]
        assert (link.kind in ("wireguard", "tun"), link.is_up) == (True, False)
        device = wireguard.open_device(VPN)
        assert device is not None
        device.set_peers([PeerChange(KEY, True, frozenset([AllowedIP.of(ip_network("fd00::/8"))]))])
        wireguard.delete(VPN)
        assert (sh("ip link; ip -6 route; ls /run/wireguard"), _processes()) == before

    in_namespace(check)


@pytest.mark.kernel
def test_two_interfaces_stand_side_by_side() -> None:
    def check() -> None:
        for port, interface in enumerate((VPN, OFFICE), start=51821):
            wireguard.create(interface)
            device = wireguard.open_device(interface)
            assert device is not None
            device.set_listen_port(port)
        assert wireguard.listen_ports() == {VPN: 51821, OFFICE: 51822}
        wireguard.delete(VPN)
        assert wireguard.listen_ports() == {OFFICE: 51822}

    in_namespace(check)


@pytest.mark.kernel
def test_an_interface_of_many_peers_goes_quickly() -> None:
    """Deleted with its peers in place, a kernel interface takes 12 to 17 ms for each: here half a minute."""

    def check() -> None:
        wireguard.create(VPN)
        device = wireguard.open_device(VPN)
        assert device is not None
        device.set_peers([PeerChange(PublicKey(os.urandom(31) + b"\0"), True) for _ in range(2500)])
        start = time.monotonic()
        wireguard.delete(VPN)
        assert time.monotonic() - start < 15
        assert VPN not in rtnetlink.links()

    in_namespace(check)


@pytest.mark.kernel
def test_a_name_that_is_taken_is_refused_and_left_alone() -> None:
    def check() -> None:
        sh("ip link add vpn type veth peer name other")
        with pytest.raises(KernelError, match="File exists") as taken:
            wireguard.create(VPN)
        assert taken.value.code == errno.EEXIST
        with pytest.raises(KernelError, match="a link of kind veth, not WireGuard"):
            wireguard.delete(VPN)
        assert wireguard.open_device(VPN) is None
        assert rtnetlink.links()[VPN].kind == "veth"

    in_namespace(check)


@pytest.mark.kernel
def test_where_there_is_nothing_nothing_opens_and_nothing_is_deleted() -> None:
    def check() -> None:
        assert wireguard.open_device(VPN) is None
        wireguard.delete(VPN)
        assert wireguard.listen_ports() == {}

    in_namespace(check)


@pytest.mark.kernel
def test_without_root_nothing_is_made() -> None:
    def check() -> None:
        drop_root()
        with pytest.raises(KernelError):
            wireguard.create(VPN)
        assert VPN not in rtnetlink.links()

    in_namespace(check)


@pytest.mark.usefixtures("userspace_wireguard")
class TestUserspace:
    """What is particular where a process serves the interface."""

    def test_it_outlives_whoever_started_it_and_is_nobodys_child(self) -> None:
        def check() -> None:
            wireguard_process.start(VPN)
            status = _status(_served_by())
            assert status["PPid"] == "1"  # of this namespace; who started it goes on
            assert status["NSsid"] != _status(os.getpid())["NSsid"]

        in_namespace(check)

    def test_it_goes_on_when_it_has_something_to_say(self) -> None:
        """Its standard output leads nowhere once it runs: writing there must not end it."""

        def check() -> None:
            wireguard_process.start(VPN)
            rtnetlink.set_up(VPN)
            # Nothing leads to this endpoint: every try is an error that it reports.
            sh("wg genkey > /run/key; wg set vpn private-key /run/key")
            sh(f"wg set vpn peer {KEY.text} endpoint 192.0.2.1:5 persistent-keepalive 1 allowed-ips fd00::/8")
            sh("ip -6 address add fd00::1/8 dev vpn nodad; ping -6 -c 3 -i 0.02 -W 1 fd00::2 || true")
            device = wireguard.open_device(VPN)
            assert device is not None
            assert KEY in device.read().peers

        in_namespace(check)

    def test_a_mistake_early_in_a_long_change_is_told_as_it_is(self) -> None:
        """The program stops listening there, while we are still speaking."""

        def check() -> None:
            wireguard_process.start(VPN)
            device = wireguard.open_device(VPN)
            assert device is not None
            impossible = PeerChange(KEY, True, frozenset([AllowedIP(bytes(16), 129)]))
            many = [PeerChange(PublicKey(os.urandom(32)), True) for _ in range(20_000)]
            with pytest.raises(KernelError, match="Invalid argument") as refused:
                device.set_peers([impossible, *many])
            assert refused.value.code == errno.EINVAL

        in_namespace(check)

    @pytest.mark.parametrize("stale", [True, False], ids=["socket left behind", "nothing left behind"])
    def test_after_it_was_killed_nobody_answers_and_it_can_be_made_again(self, stale: bool) -> None:
        def check() -> None:
            wireguard_process.start(VPN)
            os.kill(_served_by(), 9)
            wait_until(lambda: VPN not in rtnetlink.links(), what="the end of the link")
            assert wireguard.open_device(VPN) is None
            assert SOCKET.exists()
            if not stale:
                SOCKET.unlink()
            wireguard_process.start(VPN)
            assert wireguard.open_device(VPN) is not None

        in_namespace(check)

    def test_a_tun_that_nobody_serves_is_no_device_and_can_be_deleted(self) -> None:
        def check() -> None:
            sh("ip tuntap add vpn mode tun")
            assert wireguard.open_device(VPN) is None
            wireguard.delete(VPN)
            assert VPN not in rtnetlink.links()

        in_namespace(check)

    def test_one_that_hangs_is_killed(self) -> None:
        def check() -> None:
            wireguard_process.start(VPN)
            process = _served_by()
            os.kill(process, 19)  # SIGSTOP
            wireguard_process.STOP_TIMEOUT_S = 0.2
            wireguard.delete(VPN)
            assert process not in _processes()
            assert VPN not in rtnetlink.links()
            assert not SOCKET.exists()

        in_namespace(check)

    def test_one_that_was_started_as_a_daemon_goes_as_well(self) -> None:
        """As wg-quick does it: the control socket names a process that has ended since."""

        def check() -> None:
            sh("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 wireguard-go vpn 2>/dev/null")
            before = _processes()
            wireguard.delete(VPN)
            wait_until(lambda: len(_processes()) == len(before) - 1, what="the end of the daemon")
            assert not SOCKET.exists()

        in_namespace(check)

    def test_the_namesake_of_another_network_namespace_is_left_alone(self) -> None:
        def check() -> None:
            wireguard_process.start(VPN)
            with pytest.raises(RuntimeError, match="another process answers for an interface of this name"):
                sh(f"unshare --net {_start_command()}")
            assert wireguard.open_device(VPN) is not None

        in_namespace(check)

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            ("echo 'no luck today'; echo 'none at all'; exit 3", "no luck today\nnone at all"),
            ("exit 0", "it does not answer"),
            ("exec sleep 1000", "it does not answer"),
            ("echo 'I hang'; sleep 1000", "I hang"),
        ],
    )
    def test_a_program_that_does_not_come_up(self, script: str, message: str, tmp_path: Path) -> None:
        program = tmp_path / "wireguard"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

        def check() -> None:
            os.environ[wireguard_process.PROGRAM_VARIABLE] = str(program)
            wireguard_process.START_TIMEOUT_S = 0.5
            before = _processes()
            with pytest.raises(KernelError, match=f"{program} vpn: {message}"):
                wireguard_process.start(VPN)
            wait_until(lambda: _processes() == before, what="the end of what was started")

        in_namespace(check)

    def test_a_program_that_listens_and_then_fails(self, tmp_path: Path) -> None:
        """wireguard-go opens its socket first, and may find only then that it cannot go on."""
        program = tmp_path / "wireguard"
        listen = (
            f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('{SOCKET}'); s.listen(); time.sleep(0.2)"
        )
        program.write_text(f'#!/bin/sh\n{sys.executable} -c "{listen}"\necho "not today"\n')
        program.chmod(0o755)

        def check() -> None:
            os.environ[wireguard_process.PROGRAM_VARIABLE] = str(program)
            with pytest.raises(KernelError, match=r"not today|it does not answer"):
                wireguard_process.start(VPN)

        in_namespace(check)

    def test_many_interfaces_need_a_higher_limit(self, tmp_path: Path) -> None:
        """A user namespace has limits of its own, so this machine's is not touched."""

        def check() -> None:
            with pytest.raises(RuntimeError, match=r"too many open files\nmend: raise the sysctl fs.inotify"):
                sh(f"unshare --user --map-root-user --net sh -ec '{limit}; {_start_command()}'")

        limit = "echo 0 > /proc/sys/user/max_inotify_instances"
        in_namespace(check)

    def test_a_program_of_its_own_is_taken(self, tmp_path: Path) -> None:
        program = tmp_path / "mine"
        program.write_text('#!/bin/sh\necho "$@" > /run/arguments\nexec wireguard-go "$@"\n')
        program.chmod(0o755)

        def check() -> None:
            os.environ[wireguard_process.PROGRAM_VARIABLE] = str(program)
            wireguard_process.start(VPN)
            assert sh("cat /run/arguments") == "-f vpn\n"
            wireguard.delete(VPN)

        in_namespace(check)


def test_no_program_says_what_to_install() -> None:
    def check() -> None:
        os.environ["PATH"] = "/nowhere"
        with pytest.raises(KernelError, match="no program wireguard-go") as refused:
            wireguard_process.start(VPN)
        assert "install a kernel with WireGuard, or the package wireguard-go" in refused.value.mend
        assert refused.value.code == errno.EOPNOTSUPP

    in_namespace(check)


@pytest.mark.usefixtures("userspace_wireguard")
@pytest.mark.parametrize("is_there", [False, True])
def test_no_tun_device_says_what_is_needed(is_there: bool) -> None:
    def check() -> None:
        if is_there:  # and closed to us
            sh("touch /run/file; chmod 0 /run/file; mount --bind /run/file /dev/net/tun")
            drop_root()
        else:
            sh("mkdir /run/nothing; mount --bind /run/nothing /dev/net")
        with pytest.raises(KernelError, match="a userspace implementation needs /dev/net/tun") as refused:
            wireguard_process.start(VPN)
        assert refused.value.code == (errno.EACCES if is_there else errno.ENOENT)
        assert "load the kernel module wireguard or tun" in refused.value.mend

    in_namespace(check)


def _processes() -> set[int]:
    return {int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()}


def _status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _served_by() -> int:
    """The process behind vpn's control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(os.fspath(SOCKET))
        return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def _start_command() -> str:
    """`wireguard_process.start` as a process of its own."""
    source = Path(wireguard_process.__file__).parents[2]
    code = 'from warren.host.wireguard_process import start; start(\\"vpn\\")'
    return f'env PYTHONPATH={source} {sys.executable} -c "{code}"'
