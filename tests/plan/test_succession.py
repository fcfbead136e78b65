"""Who is reached elsewhere, from one document to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshes import inventory, mesh
from strategies import public_key
from warren.names import InstanceName, MachineName
from warren.network.document import Document
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.plan.succession import moved
from warren.wireguard.endpoint import Endpoint

VPN, SERVER, LAPTOP = InstanceName("vpn"), MachineName("server1"), MachineName("laptop1")
KEY = public_key(SERVER)


def document() -> Document:
    names = ("server1", "server2", "laptop1")
    stored = Stored(public_keys={MachineName(name): public_key(name).text for name in names})
    return resolve(inventory(mesh("server1 server2", "laptop1")), {VPN: stored})[VPN]


def at(endpoint: Endpoint) -> Document:
    before = document()
    server = replace(before.controllers[SERVER], endpoint=endpoint)
    return replace(before, controllers={**before.controllers, SERVER: server})


@pytest.mark.parametrize("is_watched", [True, False])
def test_only_what_changed_is_elsewhere(is_watched: bool) -> None:
    held = document()
    assert moved(held, held, LAPTOP, is_watched=is_watched) == frozenset()
    assert moved(held, None, LAPTOP, is_watched=is_watched) == frozenset()
    elsewhere = at(Endpoint("198.51.100.7", 51820))
    assert moved(elsewhere, held, LAPTOP, is_watched=is_watched) == {KEY}
    assert (
        moved(elsewhere, held, MachineName("server2"), is_watched=is_watched) == frozenset()
    )  # a controller is called


def test_another_port_alone_is_left_to_an_agent_that_watches() -> None:
    held = document()
    host = held.controllers[SERVER].endpoint.host
    other_port = at(Endpoint(host, 51999))
    assert moved(other_port, held, LAPTOP, is_watched=False) == {KEY}
    assert moved(other_port, held, LAPTOP, is_watched=True) == frozenset()
