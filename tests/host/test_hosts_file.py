"""The hosts file on disk; tests/plan/test_hosts.py has the laws of its content."""

from ipaddress import IPv6Address
from multiprocessing import get_context
from pathlib import Path

import pytest

from namespaces import in_namespace, sh
from warren.errors import MachineError
from warren.host import hosts_file
from warren.names import InstanceName
from warren.plan.desired import HostLine

VPN, HOME = InstanceName("vpn"), InstanceName("home")
LINES = (HostLine(IPv6Address("fd00::1"), "server1.vpn"), HostLine(IPv6Address("fd00::2"), "laptop1.vpn"))
TEXT = tuple(map(str, LINES))


def test_written_read_and_cleared_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    original = b"127.0.0.1 localhost\r\n# \xff\xfe no UTF-8\n::1 localhost"
    path.write_bytes(original)
    path.chmod(0o600)
    assert hosts_file.read_lines(VPN, path) is None
    hosts_file.write_lines(VPN, LINES, path)
    hosts_file.write_lines(HOME, LINES[:1], path)
    assert hosts_file.read_lines(VPN, path) == TEXT
    assert hosts_file.read_lines(HOME, path) == TEXT[:1]
    hosts_file.clear_lines(VPN, path)
    hosts_file.clear_lines(HOME, path)
    hosts_file.clear_lines(HOME, path)
    assert path.read_bytes() == original
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["hosts"]


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    assert hosts_file.read_lines(VPN, path) is None
    hosts_file.clear_lines(VPN, path)
    assert not path.exists()
    hosts_file.write_lines(VPN, LINES, path)
    assert hosts_file.read_lines(VPN, path) == TEXT
    assert path.stat().st_mode & 0o777 == 0o644


def test_broken_markers_name_the_file_and_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"127.0.0.1 localhost\n# BEGIN warren vpn\nfd00::1 server1.vpn\n")
    before = path.stat()
    for act in (
        hosts_file.read_lines,
        hosts_file.clear_lines,
        lambda vpn, path: hosts_file.write_lines(vpn, LINES, path),
    ):
        with pytest.raises(MachineError) as caught:
            act(VPN, path)
        assert caught.value.where == f"{path}:2"
    assert path.stat() == before


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.mkdir()
    with pytest.raises(MachineError, match="a folder"):
        hosts_file.write_lines(VPN, LINES, path)


def _write_often(path: Path, instance: InstanceName) -> None:
    for number in range(30):
        hosts_file.write_lines(instance, (HostLine(IPv6Address(number), "server1.vpn"),), path)


def test_two_instances_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"127.0.0.1 localhost\n")
    context = get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, instance)) for instance in (VPN, HOME)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for instance in (VPN, HOME):
        assert hosts_file.read_lines(instance, path) == (f"{IPv6Address(29)} server1.vpn",)
    assert path.read_bytes().startswith(b"127.0.0.1 localhost\n")


@pytest.mark.root
def test_the_c_library_reads_the_block_in_every_kind_of_file() -> None:
    """Mixed line endings, no last newline, strange bytes: the names resolve, ours and the others."""

    def check() -> None:
        Path("/run/hosts").write_bytes(b"# \xff\xfe\r\n192.0.2.7 theirs\r\n192.0.2.8 last")
        sh("mount --bind /run/hosts /etc/hosts")
        hosts_file.write_lines(VPN, LINES)
        for address, name in (("fd00::2", "laptop1.vpn"), ("192.0.2.7", "theirs"), ("192.0.2.8", "last")):
            assert sh(f"getent hosts {name}").split() == [address, name]
        hosts_file.clear_lines(VPN)
        with pytest.raises(RuntimeError):
            sh("getent hosts laptop1.vpn")

    in_namespace(check)
