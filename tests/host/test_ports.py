"""Who holds a UDP port."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from namespaces import in_namespace, sh, wait_until
from warren.host.ports import holder
from warren.names import InterfaceName

WG0 = InterfaceName("wg0")


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_a_process_is_named(family: int, address: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        bound.bind((address, 0))
        port = bound.getsockname()[1]
        assert holder(port) == f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
    assert holder(port) is None


@pytest.mark.root
def test_a_free_port_and_one_that_is_only_tcps() -> None:
    def check() -> None:
        assert holder(51820) is None
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.bind(("127.0.0.1", 51820))
            listening.listen()
            assert holder(51820) is None

    in_namespace(check)


@pytest.mark.root
def test_the_port_of_another_network_namespace_is_free_here() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        assert in_namespace(holder, bound.getsockname()[1]) is None


@pytest.mark.root
def test_a_socket_without_a_process_is_the_kernels() -> None:
    """VXLAN stands for kernel WireGuard, which not every kernel has: both hold a port without a process."""

    def check() -> None:
        try:
            sh("ip link add v type vxlan id 1 dstport 51820 dev lo; ip link set v up")
        except RuntimeError as error:
            pytest.skip(f"this kernel has no VXLAN: {error}")
        assert holder(51820, lambda: {WG0: 51820, InterfaceName("wg1"): 51821}) == "WireGuard interface wg0"
        unknown = holder(51820, lambda: {InterfaceName("wg1"): 51821})
        assert unknown == holder(51820) == "the kernel, or a process that cannot be seen from here (see: wg show)"

    in_namespace(check)


@pytest.mark.root
@pytest.mark.kernel
def test_kernel_wireguard_is_named() -> None:
    def check() -> None:
        try:
            sh("ip link add wg0 type wireguard")
        except RuntimeError as error:
            pytest.skip(f"this kernel has no WireGuard: {error}")
        sh("wg set wg0 listen-port 51820")
        assert holder(51820, lambda: {WG0: 51820}) is None  # it is down, and holds nothing yet
        sh("ip link set wg0 up")
        assert holder(51820, lambda: {WG0: 51820}) == "WireGuard interface wg0"

    in_namespace(check)


@pytest.mark.root
def test_a_userspace_implementation_is_named_with_its_interface() -> None:
    def check() -> None:
        process = subprocess.Popen(
            ["wireguard-go", "-f", "wg0"],
            env={**os.environ, "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1", "LOG_LEVEL": "silent"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(Path("/run/wireguard/wg0.sock").exists, what="the control socket of wireguard-go")
            sh("wg set wg0 listen-port 51820; ip link set wg0 up")
            wait_until(lambda: holder(51820), what="the port")
            name = f"process {process.pid} (wireguard-go)"
            assert holder(51820) == name
            assert holder(51820, lambda: {WG0: 51820}) == f"WireGuard interface wg0, {name}"
        finally:
            process.terminate()
            process.wait()

    in_namespace(check)
