"""What was revoked is dropped at once and for ever, whatever document comes later; on a real device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from operators import LAPTOP1, SERVER1, VPN, document, errors, local_mesh, on_a_machine, send
from strategies import public_key
from warren.agent import machine as this_machine
from warren.agent import restore
from warren.host import state, wireguard
from warren.host.machine import Host
from warren.names import InterfaceName
from warren.network.document import Document, encode

pytestmark = pytest.mark.root

STOLEN = public_key(LAPTOP1)
MESH = local_mesh("server1 server2", "laptop1 laptop2")


def good(host: Host, serial: int) -> Document:
    return document(host, MESH, serial)


def revoking(host: Host, serial: int) -> Document:
    whole = good(host, serial)
    peers = {**whole.peers, LAPTOP1: replace(whole.peers[LAPTOP1], public_key=None)}
    return replace(whole, peers=peers, revoked=(STOLEN,))


def is_let_in(host: Host) -> bool:
    device = wireguard.open_device(InterfaceName(VPN))
    assert device is not None
    return STOLEN in device.read().peers


def confirmed(host: Host, *documents: Document) -> None:
    answer = send(host, *documents)
    assert not errors(answer)
    if answer.token:
        restore.confirm(host, answer.token)


def test_a_revoked_key_is_dropped_and_a_document_that_brings_it_back_is_refused() -> None:
    def body(host: Host) -> None:
        confirmed(host, good(host, 1))
        assert is_let_in(host)
        confirmed(host, revoking(host, 2))
        assert not is_let_in(host)
        answer = send(host, good(host, 3))  # of an operator whose vars are old, and signed all the same
        assert f'it has the key {STOLEN} for machine "laptop1", which was revoked for good' in errors(answer)[VPN]
        assert not is_let_in(host)

    on_a_machine(body)


def test_it_stays_dropped_when_the_update_that_said_so_is_taken_back() -> None:
    """Nobody confirmed the document; that the key was stolen is true nevertheless."""

    def body(host: Host) -> None:
        confirmed(host, good(host, 1))
        answer = send(host, revoking(host, 2))
        assert answer.token
        assert restore.restore(host, answer.token)
        held = host.read_document(VPN)
        assert held is not None
        assert held.peers[LAPTOP1].public_key == STOLEN
        assert not is_let_in(host)

    on_a_machine(body)


def test_it_stays_dropped_for_who_brings_a_document_by_hand_or_takes_the_instance_down_meanwhile() -> None:
    def body(host: Host) -> None:
        confirmed(host, revoking(host, 1))
        this_machine.follow(host, SERVER1, {VPN: encode(good(host, 2))})
        assert not is_let_in(host)
        this_machine.take_down(host, VPN)
        this_machine.follow(host, SERVER1, {VPN: encode(good(host, 3))})
        assert not is_let_in(host)

    on_a_machine(body)


def test_the_list_on_the_disk_grows_only_and_a_broken_one_lets_nobody_in() -> None:
    def body(host: Host) -> None:
        confirmed(host, revoking(host, 1))
        confirmed(host, replace(revoking(host, 2), revoked=(public_key("other"),)))
        assert state.revoked(VPN, host.state) == {STOLEN, public_key("other")}
        Path(host.state, VPN, state.REVOKED_FILE).write_text("rubbish\n")
        verdicts = this_machine.follow(host, SERVER1)
        assert "this is not what Warren wrote here" in str(verdicts[VPN].error)

    on_a_machine(body)
