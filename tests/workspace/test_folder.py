"""The folder as one thing: each part read when asked for, every problem named where it is reached from here."""

from pathlib import Path

import pytest

from strategies import public_key
from warren.errors import InventoryError, UsageError
from warren.names import InstanceName, MachineName
from warren.workspace.folder import open_folder

VPN = InstanceName("vpn")
INVENTORY = """
[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1 = {}
roles.peer.machines.laptop2 = {}
"""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below the one that we are in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/warren.toml").write_text(INVENTORY)
    return tmp_path / "fleet"


def put(fleet: Path, machine: str, value: str, text: str | bytes) -> None:
    path = fleet / "vars/per-machine" / machine / value / "value"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_documents_need_no_vars(fleet: Path) -> None:
    document = open_folder(fleet / "warren.toml").documents[VPN]
    assert document.peers[MachineName("laptop1")].public_key is None
    assert str(document.base) == "fdeb:f20c::/40"


def test_stored_values_are_in_the_documents(fleet: Path) -> None:
    put(fleet, "laptop1", "wireguard-keys-vpn/publickey", public_key("laptop1").text + "\n")
    put(fleet, "laptop1", "wireguard-network-vpn/suffix", "dead:beef:0:1")
    peer = open_folder(fleet / "warren.toml").documents[VPN].peers[MachineName("laptop1")]
    assert (peer.public_key, peer.suffix) == (public_key("laptop1"), 0xDEADBEEF_0000_0001)


def test_all_problems_of_all_kinds_at_once_as_named_from_here(fleet: Path) -> None:
    put(fleet, "laptop1", "wireguard-keys-vpn/publickey", "half")
    put(fleet, "laptop2", "wireguard-keys-vpn/publickey", b"\xff")
    put(fleet, "laptop1", "wireguard-network-vpn/suffix", "half")
    put(fleet, "laptop2", "wireguard-network-vpn/suffix", b"\xff")
    folder = open_folder(Path("fleet/warren.toml"))
    with pytest.raises(InventoryError) as error:
        _ = folder.documents
    machines = "fleet/vars/per-machine"
    assert [problem.file for problem in error.value.problems] == [
        f"{machines}/laptop2/wireguard-keys-vpn/publickey/value",
        f"{machines}/laptop2/wireguard-network-vpn/suffix/value",
        f"{machines}/laptop1/wireguard-network-vpn/suffix/value",
        f"{machines}/laptop1/wireguard-keys-vpn/publickey/value",
    ]
    assert open_folder(Path("fleet/warren.toml")).findings.problems == error.value.problems
    with pytest.raises(InventoryError) as unreadable:
        _ = folder.texts
    assert unreadable.value.problems == error.value.problems[:2]


def test_an_unreadable_value_of_somebody_who_left_is_named_too(fleet: Path) -> None:
    put(fleet, "gone", "wireguard-network-vpn/suffix", b"\xff")
    with pytest.raises(InventoryError, match="gone"):
        _ = open_folder(fleet / "warren.toml").documents


def test_vars_are_read_without_the_inventory(fleet: Path) -> None:
    (fleet / "warren.toml").write_text("broken")
    put(fleet, "laptop1", "wireguard-network-vpn/suffix", "dead:beef:0:1")
    folder = open_folder(fleet / "warren.toml")
    assert list(folder.texts.values()) == ["dead:beef:0:1"]
    with pytest.raises(InventoryError, match=r"warren\.toml:1"):
        _ = folder.inventory


def test_an_inventory_that_is_not_there(fleet: Path) -> None:
    with pytest.raises(UsageError, match="cannot read it"):
        _ = open_folder(fleet / "other.toml").inventory


def test_an_inventory_that_comes_through_a_pipe_has_the_vars_of_this_folder(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fleet)
    put(fleet, "laptop1", "wireguard-network-vpn/suffix", "dead:beef:0:1")
    assert len(open_folder(Path("/dev/fd/0")).texts) == 1
