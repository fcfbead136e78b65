"""A controller whose own default route comes from router advertisements, by a real radvd, keeps it."""

from __future__ import annotations

import time
from ipaddress import IPv6Network

import pytest

from meshes import mesh
from namespaces import Namespace, wait_until
from operators import VPN
from warren.agent import machine as this_machine
from warren.host.machine import Host
from wired import Wired

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

LIFETIME_S = 6  # of the route; the shortest interval that radvd takes is 3 s
CONFIGURATION = f"""
interface eth0 {{
    AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime {LIFETIME_S};
    prefix 2001:db8:99::/64 {{ AdvValidLifetime 600; AdvPreferredLifetime 600; }};
}};
"""


def advertise(router: Namespace) -> None:
    router.sh(
        "sysctl -q -w net.ipv6.conf.all.forwarding=1\n"
        f"printf '%s' '{CONFIGURATION}' > /run/radvd.conf\n"
        "radvd --nodaemon --config /run/radvd.conf --pidfile /run/radvd.pid --logmethod stderr > /run/radvd.log 2>&1 &"
    )


def expires_s(server: Namespace) -> int:
    """Until the default route is forgotten unless it is advertised again; 0: there is none."""
    words = server.sh("ip -6 route show default dev wan0").replace("sec", "").split()
    return int(words[words.index("expires") + 1]) if "expires" in words else 0


@pytest.mark.parametrize("routes", [(), (IPv6Network("2001:db8:5::/64"),)], ids=["mesh", "networks-behind"])
def test_the_default_route_outlives_its_lifetime(routes: tuple[IPv6Network, ...]) -> None:
    """Without networks behind it, where the kernel can, by force_forwarding; else accept_ra is 2 first."""
    with Wired(mesh("server1", "laptop1 laptop2")) as machines, Namespace() as router:
        server = machines["server1"]
        server.sh("sysctl -q -w net.ipv6.conf.default.accept_ra=1")
        router.connect(server, "fe80::1/64", "fe80::2/64", names=("eth0", "wan0"))
        advertise(router)
        wait_until(lambda: expires_s(server) > 0, 20, "the default route")
        machines.follow(routes=routes)
        assert expires_s(server) > 0, "it was not deleted when the machine began to forward"
        _outlives(server)
        machines["laptop1"].sh("for each in $(seq 15); do ping -6 -c 1 -W 1 laptop2.vpn && exit; done; exit 1")
        server.run(_take_down)
        assert server.sh("sysctl -n net.ipv6.conf.wan0.accept_ra net.ipv6.conf.all.forwarding") == "1\n0\n"
        assert expires_s(server) > 0
        _outlives(server)


def _outlives(server: Namespace) -> None:
    """It is there all the time while its lifetime passes twice: so it was advertised again, and taken."""
    deadline_s = time.monotonic() + 2 * LIFETIME_S + 2
    while time.monotonic() < deadline_s:
        assert expires_s(server) > 0, "it ran out"
        time.sleep(0.2)


def test_that_would_be_seen() -> None:
    """Forwarding switched on by hand, as a careless tool would: the route goes, and does not come back."""
    with Namespace() as server, Namespace() as router:
        router.connect(server, "fe80::1/64", "fe80::2/64", names=("eth0", "wan0"))
        server.sh("sysctl -q -w net.ipv6.conf.wan0.accept_ra=1")
        advertise(router)
        wait_until(lambda: expires_s(server) > 0, 20, "the default route")
        server.sh("sysctl -q -w net.ipv6.conf.all.forwarding=1")
        assert expires_s(server) == 0


def _take_down() -> None:
    this_machine.take_down(Host(), VPN)
