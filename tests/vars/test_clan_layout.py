"""A repository as clan makes them, its broken prefix texts included: read as it is, and nothing of it rewritten."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from namespaces import in_namespace, sh
from strategies import public_key
from vars.test_store import killed_before_change
from warren.cli import cli
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
    make_repository(tmp_path)
    return open_folder(tmp_path / "inventory.json")


def make_repository(folder: Path) -> None:
    write(folder, "inventory.json", json.dumps(inventory_tree()))
    write(folder, "flake.nix", "{ }")
    write(folder, "vars/shared/root-ca/cert/value", "-----BEGIN CERTIFICATE-----\n")
    write(folder, "vars/shared/root-ca/key/secret", '{"data": "ENC[AES256_GCM,data:b3BlbnNzbA==]", "sops": {}}')
    write(folder, "vars/shared/root-ca/.validation-hash", sha256(b'{"days":365}').hexdigest())
    link(folder, "vars/shared/root-ca/key/users/admin", "../../../../../sops/users/admin")
    write(folder, "sops/users/admin/key.json", '[{"publickey": "age1admin", "type": "age"}]')
    for vector in VECTORS:
        instance, controller, peer = vector["instance"], vector["controller"], vector["peer"]
        write_network(folder, instance, controller, "prefix", vector["stored_prefix"])
        write_network(folder, instance, peer, "suffix", vector["suffix"])
        for machine in (controller, peer):
            write_keys(folder, instance, machine)
            write(folder, f"sops/machines/{machine}/key.json", '[{"publickey": "age1machine", "type": "age"}]')
            write(folder, f"vars/per-machine/{machine}/openssh/ssh.pub/value", "ssh-ed25519 AAAA\n").chmod(0o755)
            write(folder, f"vars/per-machine/{machine}/openssh/ssh/secret", "sealed").chmod(0o600)


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


def write(folder: Path, path: str, text: str) -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def link(folder: Path, path: str, target: str) -> None:
    if not (folder / path).is_symlink():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(target)


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
        link(folder, f"{generator}/privatekey/{kind}/{name}", f"../../../../../../sops/{kind}/{name}")


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file's and folder's mode, with the bytes or the link's target; git's own is left out."""
    found = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        for name in (*folders, *files):
            path = Path(parent) / name
            content = b""
            if path.is_symlink():
                content = os.fsencode(path.readlink())
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, every link's target."""
    return {path: content for path, (mode, content) in everything(folder).items() if not stat.S_ISDIR(mode)}


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
    before = contents(repository.path)
    tree = json.dumps(inventory_tree("new-server", "new1 new2"))
    write(repository.path, "inventory.json", tree)
    grown = open_folder(repository.path / "inventory.json")
    written = generate(grown, [NewMachines()])
    assert len(written) == len(INSTANCES) * 3 * 2
    assert {path.split("/")[2] for path in written} == {"new-server", "new1", "new2"}
    after = contents(repository.path)
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
    before = contents(repository.path)
    repository.store.delete(laptop)
    assert contents(repository.path) == {
        path: data for path, data in before.items() if path not in {variable.path for variable in laptop}
    }


# As an operator works in it


CONTROLLERS = {vector["controller"] for vector in VECTORS}
Addresses = dict[tuple[str, str], int]


@pytest.fixture
def in_git(tmp_path: Path, own_settings: None) -> Path:
    """The repository as it was committed."""
    folder = tmp_path / "clan"
    folder.mkdir()
    make_repository(folder)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=clan's")
    return folder


def git(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(("git", "-C", str(folder), *words), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def warren(folder: Path, *words: str, inventory: str = "inventory.json") -> Result:
    said = CliRunner().invoke(cli, ["-f", str(folder / inventory), *words], standalone_mode=False)
    if said.exception and not hasattr(said.exception, "exit_code"):
        raise said.exception
    return said


def as_toml(tree: Mapping[str, Any]) -> str:
    """The same inventory as somebody would type it."""
    lines = [f'meta.name = "{tree["meta"]["name"]}"']
    for instance, each in tree["instances"].items():
        lines += [f'instances.{instance}.module.name = "wireguard"']
        for role, machines in ((role, found["machines"]) for role, found in each["roles"].items()):
            for name, machine in machines.items():
                settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in machine["settings"].items())
                lines += [f"instances.{instance}.roles.{role}.machines.{name}.settings = {{ {settings} }}"]
    return "\n".join(lines) + "\n"


def stored_addresses(folder: Path) -> Addresses:
    """What the repository's own values say, read by nothing of Warren: missing groups are zero."""
    found = {}
    for file in ("prefix", "suffix"):
        for path in folder.glob(f"vars/per-machine/*/wireguard-network-*/{file}/value"):
            groups = [int(group, 16) for group in path.read_text().strip().split(":")]
            groups += [0] * (4 - len(groups))
            machine, generator = path.parts[-4], path.parts[-3]
            number = int("".join(f"{group:04x}" for group in groups), 16)
            found[generator.removeprefix("wireguard-network-"), machine] = number
    return found


def assert_shown_as_stored(folder: Path, inventory: str) -> int:
    """Each address that Warren shows is glued from the stored values; how many."""
    stored, checked = stored_addresses(folder), 0
    shown = json.loads(warren(folder, "show", "--json", inventory=inventory).stdout)["instances"]
    for instance, each in shown.items():
        for name, machine in each["machines"].items():
            own = stored[instance, name]
            if machine["role"] == "controller":
                assert int(IPv6Network(machine["subnet"]).network_address) == own << 64
                assert int(IPv6Address(machine["address"])) == own << 64 | 1
                checked += 1
            else:
                for controller, address in machine["addresses"].items():
                    assert int(IPv6Address(address)) == stored[instance, controller] << 64 | own
                    checked += 1
    return checked


@pytest.mark.parametrize("inventory", ["inventory.json", "warren.toml", "clan.nix"])
def test_read_check_and_generate_for_a_new_machine(in_git: Path, inventory: str) -> None:
    """As a user of clan would try it: everything that is not the newcomer's stays, to the byte and the mode."""
    if inventory == "clan.nix" and not shutil.which("nix-instantiate"):
        pytest.skip("needs nix-instantiate")

    def put_inventory(newcomers: str = "") -> None:
        tree = inventory_tree(new_peers=newcomers)
        text = as_toml(tree) if inventory == "warren.toml" else json.dumps(tree)
        write(in_git, inventory, f"builtins.fromJSON ''{text}''" if inventory == "clan.nix" else text)

    put_inventory()
    checked = assert_shown_as_stored(in_git, inventory)
    assert checked >= len(VECTORS)
    for words in (("check",), ("vars", "check"), ("vars", "generate")):
        said = warren(in_git, *words, inventory=inventory)
        assert said.return_value in (0, None)
        assert said.stderr in ("", "nothing is missing\n")
    put_inventory("new1")
    before, documents = everything(in_git), open_folder(in_git / inventory).documents
    assert warren(in_git, "vars", "check", inventory=inventory).return_value == 1
    assert warren(in_git, "vars", "generate", inventory=inventory).return_value == 4  # no way to new1 from here
    for instance in INSTANCES:
        value = (f"wireguard-keys-{instance}/publickey", public_key("new1", instance).text)
        assert warren(in_git, "vars", "set", "new1", *value, inventory=inventory).return_value in (0, None)

    said = warren(in_git, "vars", "check", inventory=inventory)
    assert (said.return_value, said.stderr) == (0, "")
    assert assert_shown_as_stored(in_git, inventory) == checked + sum(
        len(document.controllers) for document in documents.values()
    )
    after = everything(in_git)
    new = after.keys() - before.keys()
    assert {path: after[path] for path in before} == before
    place = "vars/per-machine/new1"
    assert {path for path in new if not path.startswith(f"{place}/")} == {place}
    written = {path for path in new if not stat.S_ISDIR(after[path][0])}
    assert written == {
        f"{place}/wireguard-{path}"
        for instance in INSTANCES
        for path in (
            f"keys-{instance}/publickey/value",
            f"network-{instance}/suffix/value",
            f"network-{instance}/.validation-hash",
        )
    }
    assert set(git(in_git, "log", "--name-only", "--format=", "HEAD", f"^HEAD~{1 + len(INSTANCES)}")) == written
    assert all(path.endswith(inventory) for path in git(in_git, "status", "--porcelain"))
    grown = open_folder(in_git / inventory).documents
    assert {name: each.controllers for name, each in grown.items()} == {
        name: each.controllers for name, each in documents.items()
    }


def test_fix_makes_the_broken_prefixes_whole_and_touches_nothing_else(in_git: Path) -> None:
    """So that Nix can glue a suffix to them; to Warren they mean what they meant."""
    before, addresses = everything(in_git), stored_addresses(in_git)
    said = warren(in_git, "vars", "fix")
    assert (said.return_value, said.exception) == (0, None)
    after = everything(in_git)
    changed = {path for path in before if after.get(path) != before[path]}
    assert changed == {
        f"vars/per-machine/{vector['controller']}/wireguard-network-{vector['instance']}/prefix/value"
        for vector in VECTORS
        if not vector["stored_prefix_sound"]
    }
    assert after.keys() == before.keys()
    assert {path: after[path][0] for path in changed} == {path: before[path][0] for path in changed}
    assert all(after[path][1].count(b":") == 3 for path in changed)
    assert stored_addresses(in_git) == addresses
    assert set(git(in_git, "show", "--name-only", "--format=", "HEAD")) == changed
    assert warren(in_git, "vars", "fix").return_value == 0
    assert everything(in_git) == after


# When things go wrong in it


def newcomers_inventory(folder: Path) -> None:
    write(folder, "inventory.json", json.dumps(inventory_tree("new-server", "new1")))


@pytest.mark.parametrize("what", ["value", ".validation-hash", "generator", "half a prefix", "not text"])
def test_what_cannot_be_read_stops_a_run_before_it_writes(repository: Folder, what: str) -> None:
    folder, vector = repository.path, VECTORS[0]
    newcomers_inventory(folder)
    generator = folder / f"vars/per-machine/{vector['controller']}/wireguard-network-{vector['instance']}"
    value = generator / "prefix/value"
    match what:
        case "value":
            value.unlink()
            value.mkdir()
        case ".validation-hash":
            (generator / what).unlink()
            (generator / what).mkdir()
        case "generator":
            shutil.rmtree(generator)
            generator.write_text("a file")
        case "half a prefix":
            value.write_text(vector["stored_prefix"][:-4])
        case _:
            value.write_bytes(b"\xff\xfe")
    before = everything(folder)
    said = warren(folder, "vars", "check")
    assert said.return_value == 1
    assert str(generator.relative_to(folder)) in said.stderr
    assert "mend: " in said.stderr
    for words in (("generate",), ("fix", "--service", f"wireguard-network-{vector['instance']}", "--machine", "new1")):
        refused = warren(folder, "vars", *words)
        assert refused.return_value == 1 or getattr(refused.exception, "exit_code", None) == 1
        assert everything(folder) == before


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    folder, untouched = tmp_path / "clan", tmp_path / "untouched"
    make_repository(untouched)
    newcomers_inventory(untouched)

    def run() -> None:
        words = ("vars", "generate", "--no-commit", "--service", "wireguard-network-vpn")
        assert warren(folder, *words).return_value == 0

    shutil.copytree(untouched, folder, symlinks=True)
    run()
    finished = contents(folder)
    for calls in count():
        shutil.rmtree(folder / "vars/per-machine/new1")
        shutil.rmtree(folder / "vars/per-machine/new-server")
        was_killed = killed_before_change(calls, run)
        now = contents(folder)
        assert open_folder(folder / "inventory.json").findings.problems == ()
        for path in now.keys() - contents(untouched).keys():
            if path.endswith("/value"):  # without its hash, clan would make it anew
                assert f"{Path(path).parents[1]}/.validation-hash" in now
        run()
        assert contents(folder) == finished
        if not was_killed:
            break
    assert calls > 10


@pytest.mark.slow
def test_two_runs_at_once_make_everything_once(in_git: Path) -> None:
    """generate and fix want the same; whoever comes second finds nothing left to do."""
    newcomers_inventory(in_git)
    program = (sys.executable, "-c", "from warren.cli import main; main()", "-f", str(in_git / "inventory.json"))
    words = (("generate",), ("fix",), ("generate", "--machine", "new1"), ("fix", "--machine", "new-server"))
    runs = [
        subprocess.Popen((*program, "vars", *each), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for each in words
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [4] * len(runs), said  # nobody has a way to the new machines
    assert open_folder(in_git / "inventory.json").findings.problems == ()
    for instance in INSTANCES:
        for file, machine in (("prefix", "new-server"), ("suffix", "new1")):
            assert sum(f"{machine} wireguard-network-{instance}/{file} " in each for each in said) == 1
    assert git(in_git, "status", "--porcelain") == [" M inventory.json"]
    assert git(in_git, "fsck", "--strict", "--no-dangling") == []
    assert not (in_git / "vars/.warren-staging").exists()


@contextmanager
def full(folder: Path, limit: str) -> Iterator[None]:
    """The repository on a file system that has no room left."""
    sh(f"mount -t tmpfs -o {limit} tmpfs {folder}")
    make_repository(folder)
    newcomers_inventory(folder)
    fillers = folder / "fillers"
    fillers.mkdir()
    try:
        for number in count():
            (fillers / str(number)).write_bytes(bytes(4096))
    except OSError:
        pass
    yield
    shutil.rmtree(fillers)


@pytest.mark.root
@pytest.mark.parametrize("limit", ["size=2m", "nr_inodes=1200"])
def test_on_a_full_disk_nothing_changes_and_with_room_it_goes_on(limit: str) -> None:
    assert in_namespace(_generate_on_a_full_disk, limit) == "as before, then done"


def _generate_on_a_full_disk(limit: str) -> str:
    folder = Path("/run/wireguard")
    generate = ("vars", "generate", "--service", "wireguard-network-vpn")
    with full(folder, limit):
        before = everything(folder)
        for words in (generate, ("vars", "fix")):
            refused = warren(folder, *words)
            assert getattr(refused.exception, "exit_code", None) == 1
            assert str(refused.exception).startswith(
                "vars: cannot be written: no space left on device\nmend: make room"
            )
            assert everything(folder) == before
    assert warren(folder, *generate).return_value == 0
    return "as before, then done"


@pytest.mark.root
def test_what_is_closed_to_the_user_is_named_and_stops_the_run() -> None:
    """Root sees through permissions, so this runs as nobody."""
    place = f"vars/per-machine/{VECTORS[0]['controller']}/wireguard-network-{VECTORS[0]['instance']}/prefix/value"
    checked, generated, written = in_namespace(_as_nobody, place)
    assert f"{place}: cannot be read: permission denied" in checked
    assert f"{place}: cannot be read: permission denied" in generated
    assert written.startswith("vars: cannot be written: permission denied\nmend: make the folder writable for you")


def _as_nobody(place: str) -> list[str]:
    folder = Path("/run/wireguard")
    sh(f"mount -t tmpfs tmpfs {folder}")
    make_repository(folder)
    newcomers_inventory(folder)
    (folder / place).chmod(0)
    os.setresuid(65534, 65534, 0)
    checked = warren(folder, "vars", "check", "--machine", VECTORS[0]["controller"])
    assert checked.return_value == 1
    generated = str(warren(folder, "vars", "generate").exception)
    os.setresuid(0, 0, 0)
    (folder / place).chmod(0o644)
    os.setresuid(65534, 65534, 65534)
    return [checked.stderr, generated, str(warren(folder, "vars", "generate").exception)]
