"""Netlink itself: attributes there and back, the kernel's words, answers that make no sense."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import socket
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namespaces import drop_root, in_namespace, sh
from warren.errors import KernelError
from warren.host import netlink, rtnetlink
from warren.host.netlink import NetlinkSocket, attribute, attributes, each_attribute, generic_family, nested
from warren.names import InterfaceName

VPN = InterfaceName("vpn")


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=100))))
def test_attributes_come_back(content: Sequence[tuple[int, bytes]]) -> None:
    packed = b"".join(attribute(kind, data) for kind, data in content)
    assert list(each_attribute(packed)) == content
    assert attributes(packed) == dict(content)


@given(st.lists(st.binary(max_size=40)), st.integers(0, 0x3FFF))
def test_attributes_inside_an_attribute_come_back(content: Sequence[bytes], kind: int) -> None:
    inner = b"".join(attribute(1, data) for data in content)
    assert attributes(nested(kind, inner)) == {kind: inner}
    assert [data for _, data in each_attribute(inner)] == content


@given(st.binary(max_size=200))
def test_garbage_is_a_kernel_error_or_attributes(data: bytes) -> None:
    with contextlib.suppress(KernelError):  # and nothing else
        attributes(data)


def test_families_have_numbers() -> None:
    assert generic_family("nlctrl") == 0x10  # GENL_ID_CTRL, fixed
    assert generic_family("no such thing") is None


def test_a_protocol_that_is_none() -> None:
    with pytest.raises(KernelError, match="no netlink socket"):
        NetlinkSocket(255)


@pytest.mark.root
def test_the_kernel_says_why_in_its_own_words() -> None:
    def check() -> None:
        sh("ip link add vpn type veth peer name other")
        with pytest.raises(KernelError) as refused:
            rtnetlink.set_mtu(VPN, 1)
        assert refused.value.code == errno.EINVAL
        assert str(refused.value) == "ip link set vpn mtu 1: Invalid argument: mtu less than device minimum"

    in_namespace(check)


@pytest.mark.root
def test_without_root_it_says_how_to_mend() -> None:
    def check() -> None:
        drop_root()
        with pytest.raises(KernelError) as refused:
            rtnetlink.delete_link(InterfaceName("lo"))
        assert refused.value.code == errno.EPERM
        assert "mend: run this as root" in str(refused.value)

    in_namespace(check)


@pytest.mark.root
def test_a_list_that_changes_while_it_is_read_is_read_again() -> None:
    """Links come and go all the time; each list that we get is one that was there: the steady ones exactly once."""

    def come_and_go() -> None:
        while True:
            sh("ip link add restless type veth peer name calm")
            sh("ip link delete restless")

    def read_often() -> None:
        for _ in range(10_000):  # one in a few is enough
            rtnetlink.links()

    def check() -> None:
        pairs = 150  # so many that the list comes in parts, between which another process gets its turn
        sh("".join(f"ip link add steady{n} type veth peer name other{n}\n" for n in range(pairs)))
        restless = multiprocessing.get_context("fork").Process(target=come_and_go, daemon=True)
        restless.start()
        netlink.DUMP_ATTEMPTS = 1
        with pytest.raises(KernelError, match="changed under each of"):
            read_often()
        netlink.DUMP_ATTEMPTS = 1000
        for _ in range(50):
            names = list(rtnetlink.links())
            assert sum(name.startswith(("steady", "other")) for name in names) == 2 * pairs
        restless.kill()

    in_namespace(check)


@pytest.mark.root
def test_a_list_of_which_parts_may_be_lost_is_read_again() -> None:
    """A full queue, here of news that nobody fetched: the kernel reports it in the midst of the answer."""

    def check() -> None:
        with NetlinkSocket(0) as conversation:
            conversation._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is
            conversation._socket.setsockopt(270, 1, 1)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK
            sh("".join(f"ip link add a{n} type veth peer name b{n}\n" for n in range(20)))
            assert len(conversation.dump(18, bytes(16), command="ip link show")) == 41  # RTM_GETLINK; lo is one
            sh("".join(f"ip link delete a{n}\n" for n in range(20)))
            with pytest.raises(KernelError, match="ip link delete lo: No buffer space available") as lost:
                conversation.request(17, bytes(16), command="ip link delete lo")  # RTM_DELLINK
            assert lost.value.code == errno.ENOBUFS

    in_namespace(check)
