"""What a machine refuses, what it follows, and what it says of it; on a real kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from meshes import inventory, mesh
from namespaces import Namespace, sh, wait_until
from operators import (
    HOME,
    KEY,
    LAPTOP1,
    SERVER1,
    SNAPSHOT,
    VPN,
    as_json,
    document,
    errors,
    local_mesh,
    machine_in,
    on_a_machine,
    request,
    send,
    sign,
    warren,
)
from strategies import public_key
from warren.agent import machine as this_machine
from warren.agent import receive, restore
from warren.agent.receive import Request, Signed
from warren.errors import MachineError
from warren.host import keys, signature, trial
from warren.host.machine import Host
from warren.names import InterfaceName, MachineName
from warren.network.document import Document, encode
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.wireguard.endpoint import Endpoint
from wired import Wired

pytestmark = pytest.mark.root


def follows(host: Host, *documents: Document, me: MachineName = SERVER1) -> None:
    """Bring the machine to these, for good."""
    answer = send(host, *documents, me=me)
    assert answer.token, errors(answer)
    restore.confirm(host, answer.token)


def home(host: Host, port: int = 51821) -> Document:
    named = local_mesh("server1", "laptop1", "home")
    controllers = {name: replace(each, port=port) for name, each in named.controllers.items()}
    return document(host, replace(named, controllers=controllers), 1)


# Refused


def signed(content: bytes) -> Signed:
    return Signed(content, sign(content))


def _tampered(host: Host, new: Document) -> Request:
    return Request({VPN: Signed(encode(new).replace(b"laptop2", b"laptop9"), sign(encode(new)))})


def _of_a_stranger(host: Host, new: Document) -> Request:
    sh("ssh-keygen -q -t ed25519 -N '' -f /run/stranger")
    return Request({VPN: Signed(encode(new), sign(encode(new), KEY.with_name("stranger")))})


def _an_old_one(host: Host, new: Document) -> Request:
    return Request({VPN: signed(encode(replace(new, serial=4)))})


def _of_the_same_serial(host: Host, new: Document) -> Request:
    return Request({VPN: signed(encode(replace(new, serial=5)))})


def _from_the_future(host: Host, new: Document) -> Request:
    return Request({VPN: signed(encode(new).replace(b'"version":1', b'"version":2'))})


def _no_document(host: Host, new: Document) -> Request:
    return Request({VPN: signed(b"half a docu")})


def _of_another_instance(host: Host, new: Document) -> Request:
    return Request({VPN: signed(encode(home(host)))})


def _without_this_machine(host: Host, new: Document) -> Request:
    return request(document(host, local_mesh("server2", "laptop1"), 6))


def _with_another_key(host: Host, new: Document) -> Request:
    stored = Stored(public_keys={name: public_key(name).text for name in (*new.controllers, *new.peers)})
    return request(resolve(inventory(local_mesh("server1 server2", "laptop1 laptop2")), {VPN: stored}, 6)[VPN])


def _with_all_keys_lost(host: Host, new: Document) -> Request:
    controllers = {
        name: each if name == SERVER1 else replace(each, public_key=None) for name, each in new.controllers.items()
    }
    peers = {name: replace(each, public_key=None) for name, each in new.peers.items()}
    return request(replace(new, controllers=controllers, peers=peers))


def _that_makes_it_a_peer_of_nobody(host: Host, new: Document) -> Request:
    named = document(host, local_mesh("server2", "server1 laptop1"), 6)
    nobody = {name: replace(each, public_key=None) for name, each in named.controllers.items()}
    return request(replace(named, controllers=nobody))


def _with_another_interface(host: Host, new: Document) -> Request:
    mine = replace(new.controllers[SERVER1], interface=InterfaceName("wg0"))
    return request(replace(new, controllers={**new.controllers, SERVER1: mine}))


def _on_a_port_that_is_taken(host: Host, new: Document) -> Request:
    holder = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    holder.bind(("", 51999))
    os.dup(holder.fileno())  # as long as this process lives
    mine = replace(new.controllers[SERVER1], port=51999)
    return request(replace(new, controllers={**new.controllers, SERVER1: mine}))


REFUSALS: list[tuple[Callable[[Host, Document], Request], str, str]] = [
    (_tampered, "it was changed after it was signed", "warren machines update"),
    (_of_a_stranger, "no operator that this machine knows signed it", "warren machines install"),
    (_an_old_one, "its serial is 4, but this machine follows 5 already", "git pull"),
    (_of_the_same_serial, "another document of the same serial, 5", "git pull"),
    (_from_the_future, "version 2, this Warren reads version 1", "update Warren on this machine"),
    (_no_document, "not a network document", "fetch it again"),
    (_of_another_instance, 'the document of instance "home", sent as that of "vpn"', "each instance its own"),
    (_without_this_machine, 'has no machine "server1"', "warren down vpn"),
    (_with_another_key, "but its own is", "warren vars set server1"),
    (_with_all_keys_lost, "nobody in it has a public key any more, laptop1, server2 had one", "git log"),
    (_that_makes_it_a_peer_of_nobody, "no controller in it has a public key", "warren vars generate"),
    (_with_another_interface, 'to change from "vpn" to "wg0"', "warren down vpn"),
    (_on_a_port_that_is_taken, "UDP port 51999: Address already in use, by process", "settings.port"),
]


@pytest.mark.parametrize(("bad", "what", "mend"), REFUSALS, ids=[bad.__name__[1:] for bad, _, _ in REFUSALS])
def test_what_is_refused_changes_nothing(bad: Callable[[Host, Document], Request], what: str, mend: str) -> None:
    def body(host: Host) -> None:
        follows(host, document(host, local_mesh("server1 server2", "laptop1"), 5))
        given = bad(host, document(host, local_mesh("server1 server2", "laptop1 laptop2"), 6))
        for dry_run in (True, False):
            here = sh(SNAPSHOT)
            answer = receive.receive(host, SERVER1, replace(given, dry_run=dry_run))
            text = errors(answer)[VPN]
            assert what in text
            assert mend in text.partition("\nmend: ")[2]
            assert (answer.token, answer.restored) == (None, False)
            assert sh(SNAPSHOT) == here
        # And it can still be followed afterwards, if it is a good one.
        follows(host, document(host, local_mesh("server1 server2", "laptop1 laptop2"), 7))

    on_a_machine(body)


def test_one_refused_instance_holds_all_of_them() -> None:
    def body(host: Host) -> None:
        here_vpn, here_home = document(host, local_mesh(), 5), home(host)
        follows(host, here_vpn, here_home)
        here = sh(SNAPSHOT)
        newer = document(host, local_mesh(peers="laptop1 laptop2"), 6)
        older = replace(here_home, serial=0)
        answer = send(host, newer, older)
        assert "its serial is 0" in errors(answer)[HOME]
        assert errors(answer)[VPN] == "left as it was, since this was refused: home"
        assert sh(SNAPSHOT) == here

    on_a_machine(body)


def test_instances_in_each_others_way_are_refused() -> None:
    def body(host: Host) -> None:
        documents = [document(host, local_mesh(), 1), home(host, port=51820)]
        here = sh(SNAPSHOT)
        said = errors(send(host, *documents))
        assert said[VPN] == said[HOME]
        assert 'instances "vpn" and "home" both have the listen port 51820' in said[VPN]
        assert sh(SNAPSHOT) == here
        follows(host, documents[0])
        here = sh(SNAPSHOT)
        assert "Address already in use, by WireGuard interface vpn" in errors(send(host, documents[1]))[HOME]
        assert sh(SNAPSHOT) == here

    on_a_machine(body)


def test_a_machine_that_was_never_installed_follows_nobody() -> None:
    def body(host: Host) -> None:
        given = request(document(host, local_mesh(), 1))
        signature.ALLOWED_SIGNERS.unlink()
        here = sh(SNAPSHOT)
        text = errors(receive.receive(host, SERVER1, given))[VPN]
        assert "/etc/warren/allowed_signers: this machine knows no operator" in text
        assert sh(SNAPSHOT) == here

    on_a_machine(body)


# Followed


def test_a_dry_run_says_what_would_be_done_and_does_nothing() -> None:
    def body(host: Host) -> None:
        given = request(document(host, local_mesh(), 1), dry_run=True)
        here = sh(SNAPSHOT)
        answer = receive.receive(host, SERVER1, given)
        assert sh(SNAPSHOT) == here
        assert answer.token is None
        done = receive.receive(host, SERVER1, replace(given, dry_run=False))
        assert done.verdicts[VPN].steps == answer.verdicts[VPN].steps != ()

    on_a_machine(body)


def test_what_changes_nothing_here_needs_no_confirmation() -> None:
    """Such as a newer document that differs in what this machine does not look at: only its serial, here."""

    def body(host: Host) -> None:
        old = document(host, local_mesh(), 1)
        follows(host, old)
        same = send(host, old)
        assert (same.token, same.verdicts[VPN].steps, errors(same)) == (None, (), {})
        newer = replace(old, serial=2)
        answer = send(host, newer)
        assert (answer.token, answer.verdicts[VPN].steps, errors(answer)) == (None, (), {})
        assert host.read_document(VPN) == newer
        assert "its serial is 1" in errors(send(host, old))[VPN]

    on_a_machine(body)


def test_a_controller_that_moves_is_followed_though_it_was_heard_a_moment_ago() -> None:
    """And gone back to, where the change is undone."""
    with Wired(mesh("server1", "laptop1")) as machines:
        machines.follow()
        server, laptop = machines["server1"], machines["laptop1"]
        laptop.sh("ping -c 1 -W 5 server1.vpn")
        machines.follow(port=51999)
        assert "198.51.100.1:51999" in laptop.sh("wg show vpn endpoints")
        laptop.sh("ping -c 1 -W 5 server1.vpn")
        here = laptop.sh(SNAPSHOT)
        nowhere = machines.document(port=52000)
        laptop.run(_try_and_lose_the_way, nowhere)
        assert laptop.sh(SNAPSHOT) == here
        assert server.sh("wg show vpn listen-port") == "51999\n"


def _try_and_lose_the_way(new: Document) -> None:
    answer = send(Host(), new, me=LAPTOP1)
    assert "no controller answers any more" in errors(answer)[VPN]
    assert answer.restored
    (Host().state / "restored.json").unlink()


@pytest.mark.kernel
def test_drift_is_put_right_on_the_way() -> None:
    def body(host: Host) -> None:
        old = document(host, local_mesh(), 1)
        follows(host, old)
        sh("ip link set vpn mtu 1300")
        answer = send(host, old)
        assert answer.token is None
        assert [type(step).__name__ for step in answer.verdicts[VPN].steps] == ["SetMtu"]
        assert this_machine.check(host, SERVER1, {VPN: old})[VPN].steps == ()

    on_a_machine(body)


def test_a_document_that_broke_on_the_disk_is_mended_by_a_new_one() -> None:
    def body(host: Host) -> None:
        follows(host, document(host, local_mesh(), 1))
        (host.state / VPN / "network.json").write_text("half a docu")
        new = document(host, local_mesh(peers="laptop1 laptop2"), 2)
        follows(host, new)
        assert host.read_document(VPN) == new

    on_a_machine(body)


def test_the_signature_is_kept_beside_the_document_it_is_over() -> None:
    def body(host: Host) -> None:
        old = document(host, local_mesh(), 1)
        follows(host, old)
        kept = host.state / VPN / "network.json.sig"
        signature.verify(encode(old), kept.read_bytes())
        new = document(host, local_mesh(peers="laptop1 laptop2"), 2)
        token = send(host, new).token
        assert token
        signature.verify(encode(new), kept.read_bytes())
        restore.restore(host, token)
        signature.verify(encode(old), kept.read_bytes())
        # By this machine's own root, without a signature.
        assert this_machine.follow(host, SERVER1, {VPN: encode(new)})[VPN].error is None
        assert not kept.exists()

    on_a_machine(body)


# What fails after the first effect


def test_an_update_that_fails_half_way_is_undone_at_once() -> None:
    def body(host: Host) -> None:
        old = document(host, local_mesh(), 1)
        follows(host, old)
        here = sh(SNAPSHOT)
        new = document(host, local_mesh(peers="laptop1 laptop2"), 2)
        sh("mount -o remount,bind,ro /etc")  # the names are written last
        answer = send(host, new)
        assert "/etc/hosts" in errors(answer)[VPN]
        assert (answer.token, trial.read(host.state)) == (None, None)
        assert answer.restored
        note = trial.read_restored(host.state)
        assert note is not None
        assert note.why.startswith("it could not be applied: ")
        (host.state / "restored.json").unlink()
        assert sh(SNAPSHOT) == here

    on_a_machine(body)


def test_a_full_disk_is_an_error_and_no_change() -> None:
    def body(host: Host) -> None:
        sh("mount -t tmpfs -o size=48k none /var/lib")
        old = document(host, local_mesh(), 1)
        follows(host, old)
        large = document(host, local_mesh(peers=" ".join(f"laptop{number}" for number in range(1, 300))), 2)
        here = sh(SNAPSHOT)
        answer = send(host, large)
        assert "No space left on device" in errors(answer)[VPN]
        assert "free some space" in errors(answer)[VPN]
        assert answer.token is None
        assert trial.read(host.state) is None
        (host.state / "restored.json").unlink(missing_ok=True)
        assert sh(SNAPSHOT) == here
        sh("dd if=/dev/zero of=/var/lib/full bs=1k 2> /dev/null || :")  # now not even a note can be written
        with pytest.raises(MachineError, match="No space left"):
            send(host, document(host, local_mesh(peers="laptop1 laptop2"), 2))
        sh("rm /var/lib/full")
        assert sh(SNAPSHOT) == here
        follows(host, document(host, local_mesh(peers="laptop1 laptop2"), 2))

    on_a_machine(body)


def test_two_updates_at_once_go_one_after_the_other() -> None:
    def body(host: Host) -> None:
        follows(host, document(host, local_mesh(), 1))
        new = [document(host, local_mesh(peers=f"laptop1 laptop{number}"), number) for number in (2, 3)]
        texts = [as_json(request(each)) for each in new]
        with ThreadPoolExecutor() as pool:
            answers = list(
                pool.map(lambda text: warren("machine", "receive", "--machine", "server1", stdin=text), texts)
            )
        held = host.read_document(VPN)
        assert held is not None
        # The newer one holds, whether it came last, or came first and the older one was refused.
        assert held.serial == 3, answers
        assert this_machine.check(host, SERVER1, {VPN: held})[VPN].steps == ()

    on_a_machine(body)


# A way back to a controller


@pytest.mark.kernel
def test_an_update_that_loses_the_only_controller_is_undone() -> None:
    """The peer reached it before; it has another key in the new document, so it never answers again."""
    with Namespace() as server, Namespace() as laptop:
        old = _two_machines(server, laptop)
        lost = replace(old.controllers[SERVER1], public_key=public_key("somebody else"))
        new = replace(old, serial=2, controllers={SERVER1: lost})
        answer = laptop.run(lambda: send(Host(), new, me=LAPTOP1))
        assert "no controller answers any more, of server1; before the change one did" in errors(answer)[VPN]
        assert answer.restored
        assert answer.token is None
        address = old.controllers[SERVER1].address
        laptop.sh(f"ping -6 -c 1 -W 10 {address}")
        # What leaves the way as it is passes.
        other = replace(
            old.peers[LAPTOP1], name=MachineName("laptop2"), public_key=public_key("laptop2"), suffix=1 << 40
        )
        fine = replace(old, serial=3, peers={**old.peers, other.name: other})
        assert laptop.run(lambda: send(Host(), fine, me=LAPTOP1)).token


def test_a_controller_that_was_silent_before_does_not_hold_up_an_update() -> None:
    with Namespace() as server, Namespace() as laptop:
        old = _two_machines(server, laptop)
        server.sh("ip link set eth0 down")
        other = replace(old.controllers[SERVER1], public_key=public_key("its new key"))
        new = replace(old, serial=2, controllers={SERVER1: other})
        assert laptop.run(lambda: send(Host(), new, me=LAPTOP1)).token


def _two_machines(server: Namespace, laptop: Namespace) -> Document:
    """server1 and laptop1, which reach each other in the mesh; their document, of serial 1."""
    for each in (server, laptop):
        machine_in(each)
    server.connect(laptop, "198.51.100.1/24", "198.51.100.2/24")
    named = local_mesh("server1", "laptop1")
    controllers = {
        name: replace(each, endpoint=Endpoint("198.51.100.1", 51820)) for name, each in named.controllers.items()
    }
    texts = {
        SERVER1: server.run(lambda: keys.ensure_key(VPN)).text,
        LAPTOP1: laptop.run(lambda: keys.ensure_key(VPN)).text,
    }
    whole = inventory(replace(named, controllers=controllers))
    old = resolve(whole, {VPN: Stored(public_keys=texts)}, 1)[VPN]
    for namespace, me in ((server, SERVER1), (laptop, LAPTOP1)):
        namespace.run(partial(follows, Host(), old, me=me))
    ping = f"ping -6 -c 1 -W 1 {old.controllers[SERVER1].address} || :"
    wait_until(lambda: "1 received" in laptop.sh(ping), what="the mesh")
    return old
