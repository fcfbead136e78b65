"""The machine's folder: documents are checked before they are kept, and nothing is forgotten by accident."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from meshes import inventory, mesh
from namespaces import drop_root, in_namespace, sh
from strategies import public_key
from warren.errors import DocumentRefused, MachineError
from warren.host import keys, state
from warren.names import InstanceName, MachineName
from warren.network.document import encode
from warren.network.resolve import resolve
from warren.network.stored import Stored

VPN, HOME = InstanceName("vpn"), InstanceName("home")


def document(instance: InstanceName = VPN, peers: str = "laptop1", serial: int = 1) -> bytes:
    names = ["server1", *peers.split()]
    stored = Stored(public_keys={MachineName(name): public_key(name).text for name in names})
    return encode(resolve(inventory(mesh("server1", peers, instance)), {instance: stored}, serial=serial)[instance])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "warren"


def test_an_empty_machine(root: Path) -> None:
    assert state.machine_name(root) is None
    assert state.instances(root) == ()
    assert state.read_document(VPN, root) is None
    state.remove_instance(VPN, root)
    assert not root.exists()


def test_a_name_is_kept(root: Path) -> None:
    state.write_machine_name(MachineName("laptop1"), root)
    assert state.machine_name(root) == "laptop1"
    state.write_machine_name(MachineName("laptop2"), root)
    assert state.machine_name(root) == "laptop2"


@pytest.mark.parametrize("content", [b"", b"two words\n", b"\xff\n", b"-dash"])
def test_a_broken_name_is_refused(root: Path, content: bytes) -> None:
    state.write_machine_name(MachineName("laptop1"), root)
    (root / "machine.name").write_bytes(content)
    with pytest.raises(MachineError, match="is not a machine's name") as caught:
        state.machine_name(root)
    assert caught.value.where == str(root / "machine.name")


def test_an_instance_called_machine_is_an_instance_like_others(root: Path) -> None:
    name = InstanceName("machine")
    state.write_machine_name(MachineName("server1"), root)
    state.write_document(name, document(name), root)
    assert state.instances(root) == (name,)
    assert state.machine_name(root) == "server1"


def test_documents_are_kept_as_they_came(root: Path) -> None:
    for instance in (VPN, HOME):
        kept = state.write_document(instance, document(instance), root)
        assert state.read_document(instance, root) == kept
        assert (root / instance / "network.json").read_bytes() == document(instance)
    assert state.instances(root) == (HOME, VPN)
    assert stat.S_IMODE((root / "vpn").stat().st_mode) == 0o700
    newer = document(serial=2)
    state.write_document(VPN, newer, root)
    assert (root / "vpn" / "network.json").read_bytes() == newer


def test_a_folder_without_a_document_is_no_instance(root: Path) -> None:
    keys.ensure_key(VPN, root)
    (root / "not an instance").mkdir()
    (root / "not an instance" / "network.json").write_bytes(document())
    assert state.instances(root) == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a network document"),
        (document()[:100], "not a network document"),
        (document().replace(b'"version":1', b'"version":2'), "version 2"),
        (document(HOME), 'of instance "home", not of "vpn"'),
    ],
)
def test_a_document_that_is_none_changes_nothing(root: Path, content: bytes, words: str) -> None:
    with pytest.raises(DocumentRefused, match=words):
        state.write_document(VPN, content, root)
    assert not root.exists()
    kept = state.write_document(VPN, document(), root)
    with pytest.raises(DocumentRefused, match=words) as caught:
        state.write_document(VPN, content, root)
    assert caught.value.mend
    assert state.read_document(VPN, root) == kept


def test_a_document_that_broke_on_disk_is_an_error_with_its_place(root: Path) -> None:
    state.write_document(VPN, document(), root)
    path = root / "vpn" / "network.json"
    path.write_bytes(document()[:-10])
    with pytest.raises(DocumentRefused) as caught:
        state.read_document(VPN, root)
    assert caught.value.where == str(path)


def test_a_removed_instance_keeps_its_key_unless_asked(root: Path) -> None:
    public = keys.ensure_key(VPN, root)
    state.write_document(VPN, document(), root)
    (root / "vpn" / ".network.json.warren-new").write_bytes(b"half")
    state.remove_instance(VPN, root)
    assert state.instances(root) == ()
    assert [each.name for each in (root / "vpn").iterdir()] == ["private.key"]
    assert keys.ensure_key(VPN, root) == public
    state.remove_instance(VPN, root, keep_key=False)
    assert list(root.iterdir()) == []


def test_a_removed_instance_without_a_key_leaves_nothing(root: Path) -> None:
    state.write_document(VPN, document(), root)
    state.remove_instance(VPN, root)
    assert list(root.iterdir()) == []


@pytest.mark.root
def test_disks_that_refuse() -> None:
    def check() -> None:
        sh("mkdir /run/warren; mount -t tmpfs -o size=16k none /run/warren")
        root = Path("/run/warren")
        kept = state.write_document(VPN, document(), root)
        large = document(peers=" ".join(f"laptop{number}" for number in range(200)))
        with pytest.raises(MachineError, match="No space"):
            state.write_document(VPN, large, root)
        assert state.read_document(VPN, root) == kept
        sh("mount -o remount,ro /run/warren")
        with pytest.raises(MachineError, match="Read-only"):
            state.write_document(VPN, document(serial=2), root)
        with pytest.raises(MachineError, match="Read-only"):
            state.write_document(HOME, document(HOME), root)
        with pytest.raises(MachineError, match="Read-only"):
            state.remove_instance(VPN, root)
        assert state.read_document(VPN, root) == kept

    in_namespace(check)


@pytest.mark.root
def test_what_root_alone_may_see_is_an_error_to_others_and_not_nothing() -> None:
    def check() -> None:
        root = Path("/run/warren")
        state.write_document(VPN, document(), root)
        drop_root()
        acts: list[Callable[[], object]] = [lambda: state.instances(root), lambda: state.read_document(VPN, root)]
        for act in acts:
            with pytest.raises(MachineError, match="cannot be read") as caught:
                act()
            assert caught.value.mend == "run this as root"
        assert state.machine_name(root) is None

    in_namespace(check)
