"""A first inventory, for somebody who has none yet."""

from __future__ import annotations


def first_inventory(name: str) -> str:
    """The text of a warren.toml that reads without error, with comments for a newcomer; `name` is a host name."""
    return _TEXT.replace("NAME", name)


_TEXT = """\
# A mesh: machines that reach each other by name, over WireGuard.
#
#   warren check       is this file right?
#   warren show        addresses and names that follow from it
#   warren lab up      the whole mesh on this computer, made of namespaces

meta.name = "NAME"

# Every machine. `deploy.host` is how you reach it with ssh; tags group machines (all of them have the tag `all`).
[machines]
server1.deploy.host = "root@vpn1.example.com"
server2.deploy.host = "root@vpn2.example.com"
laptop1.tags = ["laptop"]
laptop2.tags = ["laptop"]

# One mesh, called `vpn`: laptop1 is `laptop1.vpn` for every machine in it, and the network interface is `vpn` too.
[instances.vpn]
module.name = "wireguard"

# Controllers have a public endpoint (UDP port 51820, unless you write host:port), and route for the others.
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.controller.machines.server2.settings.endpoint = "vpn2.example.com"

# Peers connect to every controller. With more than one, say into whose subnet their names point.
roles.peer.tags.laptop = {}
roles.peer.settings.controller = "server1"

# The nearer setting wins: role, then tag, then machine.
roles.peer.machines.laptop2.settings.controller = "server2"
"""
