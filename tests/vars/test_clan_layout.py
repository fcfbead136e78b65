"""A repository as clan makes them, its broken prefix texts included: read as it is, and nothing of it rewritten."""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from strategies import public_key
from warren.names import InstanceName, MachineName
from warren.network.addresses import peer_address, peer_range, suffix_text
from warren.network.document import ControllerEntry, PeerEntry
from warren.vars.check import Findings
from warren.vars.generate import Selection, carry_out, work
from warren.vars.reach import Reach
from warren.wireguard.keys import PublicKey
from warren.workspace.folder import Folder, open_folder

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "vectors/addresses.json").read_text())[
    "vectors"
]
INSTANCES = sorted({vector["instance"] for vector in VECTORS})


def members(instance: str, role: str) -> list[str]:
    return sorted({vector[role] for vector in VECTORS if vector["instance"] == instance})


@pytest.fixture
def repository(tmp_path: Path) -> Folder:
    """Every instance, controller and peer of the vectors, with values as clan writes them."""
    write(tmp_path, "inventory.json", json.dumps(inventory_tree()))
    write(tmp_path, "flake.nix", "{ }")
    write(tmp_path, "vars/shared/root-ca/cert/value", "-----BEGIN CERTIFICATE-----\n")
    for vector in VECTORS:
        instance, controller, peer = vector["instance"], vector["controller"], vector["peer"]
        write_network(tmp_path, instance, controller, "prefix", vector["stored_prefix"])
        write_network(tmp_path, instance, peer, "suffix", vector["suffix"])
        for machine in (controller, peer):
            write_keys(tmp_path, instance, machine)
    return open_folder(tmp_path / "inventory.json")


def inventory_tree(new_controllers: str = "", new_peers: str = "") -> dict[str, Any]:
    instances = {}
    for instance in INSTANCES:
        controllers = members(instance, "controller") + new_controllers.split()
        instances[instance] = {
            "module": {"name": "wireguard", "input": "clan-core"},
            "roles": {
                "controller": {
                    "machines": {
                        name: {
                            "settings": {"endpoint": f"{name}.example.com", "port": 51820 + INSTANCES.index(instance)}
                        }
                        for name in controllers
                    }
                },
                "peer": {
                    "machines": {
                        name: {"settings": {"controller": controllers[0]}}
                        for name in members(instance, "peer") + new_peers.split()
                    }
                },
            },
        }
    return {"meta": {"name": "old-clan"}, "instances": instances}


def write(folder: Path, path: str, text: str) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def write_network(folder: Path, instance: str, machine: str, file: str, text: str) -> None:
    generator = f"vars/per-machine/{machine}/wireguard-network-{instance}"
    write(folder, f"{generator}/{file}/value", text)
    write(folder, f"{generator}/.validation-hash", clans_hash(machine))


def clans_hash(machine: str) -> str:
    """`hashString "sha256" (toJSON validation)`, where the service says `validation.hostname = machine.name`."""
    return sha256(f'{{"hostname":"{machine}"}}'.encode()).hexdigest()


def write_keys(folder: Path, instance: str, machine: str) -> None:
    generator = f"vars/per-machine/{machine}/wireguard-keys-{instance}"
    write(folder, f"{generator}/publickey/value", public_key(machine, instance).text + "\n")
    write(folder, f"{generator}/privatekey/secret", '{"data": "ENC[AES256_GCM,data:apX2sLwt]", "sops": {}}')
    for kind, name in (("machines", machine), ("users", "admin")):
        link = folder / generator / "privatekey" / kind / name
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"../../../../../../sops/{kind}/{name}")


def everything(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, every link's target."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent) / name
            if path.is_symlink():
                found[str(path.relative_to(folder))] = b"-> " + os.fsencode(path.readlink())
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


class NewMachines:
    """Machines that have just been installed."""

    def reaches(self, machine: MachineName) -> bool:
        return machine.startswith("new")

    def make_key(self, machine: MachineName, instance: InstanceName, replace: bool) -> PublicKey:
        return public_key(machine, instance)

    def stage_key(self, machine: MachineName, instance: InstanceName) -> PublicKey:
        raise AssertionError("nobody follows a document here")


def generate(folder: Folder, reaches: list[Reach]) -> Mapping[str, str]:
    """Run it; the files that were written."""
    written: dict[str, str] = {}
    found = work(folder.inventory, folder.texts, Selection())
    failures = carry_out(found, folder.store, reaches, lambda variable, text: written.update({variable.path: text}))
    assert failures == ()
    return written


def test_every_address_is_the_stored_one(repository: Folder) -> None:
    """The vectors say what each stored text means."""
    for vector in VECTORS:
        document = repository.documents[InstanceName(vector["instance"])]
        controller = document.entry(MachineName(vector["controller"]))
        peer = document.entry(MachineName(vector["peer"]))
        assert isinstance(controller, ControllerEntry)
        assert isinstance(peer, PeerEntry)
        assert document.base == IPv6Network(vector["base"])
        assert controller.subnet == IPv6Network(vector["subnet"])
        assert controller.address == IPv6Address(vector["controller_address"])
        assert suffix_text(peer.suffix) == vector["suffix"]
        assert peer_address(controller.subnet, peer.suffix) == IPv6Address(vector["canonical"])
        assert str(peer_range(controller.subnet, peer.suffix)) == vector["peer_range_96"]
        assert peer.public_key == public_key(peer.name, document.instance)
        assert controller.public_key == public_key(controller.name, document.instance)


def test_nothing_is_missing_wrong_or_left_over(repository: Folder) -> None:
    assert repository.findings == Findings((), (), ())


def test_a_run_with_nothing_to_do_changes_no_byte(repository: Folder) -> None:
    before = everything(repository.path)
    assert generate(repository, []) == {}
    assert everything(repository.path) == before


def test_only_what_new_machines_lack_is_added(repository: Folder) -> None:
    before = everything(repository.path)
    tree = json.dumps(inventory_tree("new-server", "new1 new2"))
    write(repository.path, "inventory.json", tree)
    grown = open_folder(repository.path / "inventory.json")
    written = generate(grown, [NewMachines()])
    assert len(written) == len(INSTANCES) * 3 * 2
    assert {path.split("/")[2] for path in written} == {"new-server", "new1", "new2"}
    after = everything(repository.path)
    hashes = {
        f"vars/per-machine/{machine}/wireguard-network-{instance}/.validation-hash": clans_hash(machine).encode()
        for machine in ("new-server", "new1", "new2")
        for instance in INSTANCES
    }
    assert {path: data for path, data in after.items() if path not in written} == {
        **before,
        **hashes,  # without, clan would make the values anew
        "inventory.json": tree.encode(),
    }
    for path, text in written.items():
        assert after[path] == (text + "\n" if path.endswith("publickey/value") else text).encode()
    for name, document in open_folder(repository.path / "inventory.json").documents.items():
        old = repository.documents[name]
        assert old.controllers.items() <= document.controllers.items()
        assert {name: peer.suffix for name, peer in old.peers.items()}.items() <= {
            name: peer.suffix for name, peer in document.peers.items()
        }.items()


def test_a_prefix_that_lost_its_zeros_is_not_rewritten_even_when_regenerated(repository: Folder) -> None:
    broken = [vector for vector in VECTORS if not vector["stored_prefix_sound"]]
    assert {vector["controller"] for vector in broken} == {"gw26", "server7142"}
    generators = frozenset(f"wireguard-network-{instance}" for instance in INSTANCES)
    again = work(repository.inventory, repository.texts, Selection(generators, regenerate=True))
    assert again.values == {}


def test_values_go_when_their_machine_goes_and_clans_own_stay(repository: Folder) -> None:
    laptop = [variable for variable in repository.texts if variable.machine == "laptop1"]
    before = everything(repository.path)
    repository.store.delete(laptop)
    assert everything(repository.path) == {
        path: data for path, data in before.items() if path not in {variable.path for variable in laptop}
    }
