"""clan.nix through the real nix-instantiate."""

import os
import shutil
from pathlib import Path

import pytest

from warren.errors import InventoryError, UsageError
from warren.inventory.findings import Place
from warren.inventory.model import Deploy
from warren.names import InstanceName, MachineName
from warren.workspace.nix import explain, read_nix

needs_nix = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None, reason="nix-instantiate is not installed (Debian: nix-bin)"
)

VPN = InstanceName("vpn")


def write(folder: Path, text: str) -> Path:
    path = folder / "clan.nix"
    path.write_text(text)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(InventoryError) as error:
        read_nix(path, "clan.nix")
    return [str(problem) for problem in error.value.problems]


WHOLE = """\
{ self, lib, ... }@arguments:
let
  # What a real clan does and Warren must not look at.
  broken = throw "nobody should look at this";
in
{
  inherit self;
  meta.name = "burrow";
  specialArgs = { inherit arguments; };
  secrets.age.plugins = broken;
  machines.server1 = { config, pkgs, ... }: { imports = [ ./nothing.nix ]; };
  machines.server2 = ./configuration.nix;
  inventory = {
    modules = broken;
    tags = { config, ... }: { computed = config.all; };
    machines.server1 = { deploy.targetHost = "root@vpn1.example.com"; machineClass = "nixos"; };
    machines.laptop1.tags = [ "laptop" ];
    instances = {
      users = {
        module = { name = "users"; input = broken; };
        roles.default.settings = broken;
      };
      zerotier.roles.controller.machines = broken;
      vpn = {
        module = { name = "wireguard"; input = "clan-core"; };
        roles.controller.machines.server1.settings.endpoint = "vpn1.example.com";
        roles.controller.extraModules = [ (broken) ./module.nix ];
        roles.peer.tags = [ "laptop" ];
        roles.peer.machines.server2 = { };
      };
    };
  };
}
"""


@needs_nix
def test_a_whole_clan(tmp_path: Path) -> None:
    """Functions, paths, computed tags, other modules and arguments are not looked at."""
    inventory = read_nix(write(tmp_path, WHOLE), "clan.nix")
    assert inventory.name == "burrow"
    assert list(inventory.machines) == ["laptop1", "server1", "server2"]
    assert inventory.machines[MachineName("server1")].deploy == Deploy("root@vpn1.example.com")
    assert inventory.machines[MachineName("laptop1")].tags == {"all", "laptop", "nixos"}
    assert list(inventory.instances) == ["vpn"]
    assert list(inventory.instances[VPN].peers) == ["laptop1", "server2"]
    assert len(inventory.notes) == 2


@needs_nix
def test_folders_of_machines_are_machines(tmp_path: Path) -> None:
    for name in ("server1", "laptop1"):
        (tmp_path / "machines" / name).mkdir(parents=True)
    (tmp_path / "machines" / "README.md").touch()
    text = """{ inventory.instances.vpn = {
      module.name = "wireguard";
      roles.controller.machines.server1.settings.endpoint = "vpn1.example.com";
      roles.peer.machines.%s = { };
    }; }"""
    assert list(read_nix(write(tmp_path, text % "laptop1"), "clan.nix").machines) == ["laptop1", "server1"]
    assert 'there is no machine "laptop2"' in problems(write(tmp_path, text % "laptop2"))[0]


@needs_nix
def test_machines_at_the_top_with_tags(tmp_path: Path) -> None:
    text = """{ lib, ... }: {
      machines.server1.deploy.host = "root@192.0.2.1";
      machines.laptop1.tags = [ "laptop" ];
      machines.laptop2 = { pkgs, ... }: { };
      instances.vpn = {
        module.name = "wireguard";
        roles.controller.machines.server1.settings.endpoint = "vpn1.example.com";
        roles.peer.tags.laptop = { };
      };
    }"""
    inventory = read_nix(write(tmp_path, text), "clan.nix")
    assert inventory.machines[MachineName("server1")].deploy.host == "root@192.0.2.1"
    assert list(inventory.instances[VPN].peers) == ["laptop1"]
    assert "laptop2" in inventory.machines


@needs_nix
def test_mistakes_in_an_imported_file_are_shown_there(tmp_path: Path) -> None:
    (tmp_path / "vpn.nix").write_text('{\n  module.name = "wireguard";\n  roles.peers = { };\n}\n')
    (found,) = problems(write(tmp_path, "{ instances.vpn = import ./vpn.nix; }\n"))
    assert found.startswith(
        f'{tmp_path}/vpn.nix:3:9: unknown key "peers" in instances.vpn.roles\n    3 |   roles.peers'
    )


@needs_nix
def test_what_is_computed_has_the_place_of_what_is_above(tmp_path: Path) -> None:
    text = """{
  instances.vpn = {
    module.name = "wireguard";
    roles.controller.machines.server1 = builtins.fromJSON ''{"seting": {}}'';
  };
}
"""
    (found,) = problems(write(tmp_path, text))
    assert found.startswith('clan.nix:4:31: unknown key "seting"')
    assert "^^^^^^^\n" in found


@needs_nix
@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("{\n instances = { }\n}\n", "syntax error", 3),
        ("{\n instances = nowhere;\n}\n", "undefined variable 'nowhere'", 2),
        ('{ instances = throw "not today"; }\n', "not today", 0),
        (
            "{ lib, ... }: { instances = lib.mkForce { }; }\n",
            "its argument `lib` is something that Warren does not have",
            0,
        ),
        ("[ 1 ]\n", "it is not a set of attributes", 0),
        ("{ instances = (import <nothing-there> { }); }\n", "'nothing-there' was not found", 1),
    ],
)
def test_what_nix_says(tmp_path: Path, text: str, message: str, line: int) -> None:
    with pytest.raises(InventoryError) as error:
        read_nix(write(tmp_path, text), "clan.nix")
    (problem,) = error.value.problems
    assert message in problem.message
    assert problem.mend
    assert problem.file == "clan.nix"
    if line:  # newer versions of Nix have places where older ones have none
        assert problem.line == line


@needs_nix
def test_texts_that_are_no_utf8_and_trees_without_end(tmp_path: Path) -> None:
    (tmp_path / "name.nix").write_bytes('"B\xfcro"'.encode("latin-1"))
    start = '{ instances.vpn = { module.name = "wireguard"; roles.controller.settings.domain = '
    found = problems(write(tmp_path, start + "import ./name.nix; }; }"))
    assert any('"B�ro" cannot be a domain' in problem for problem in found)
    deep = "builtins.foldl' (inner: _: { x = inner; }) { } (builtins.genList (x: x) 2000); }; }"
    assert "nested too deeply" in problems(write(tmp_path, start + deep))[0]


@needs_nix
def test_odd_file_names(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" ${c} \\d ü'
    folder.mkdir()
    assert list(read_nix(write(folder, WHOLE), "clan.nix").instances) == ["vpn"]


@needs_nix
def test_no_store_is_needed_and_none_is_made(tmp_path: Path) -> None:
    before = Path("/nix").exists()
    read_nix(write(tmp_path, WHOLE), "clan.nix")
    assert Path("/nix").exists() == before


def test_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as error:
        read_nix(write(tmp_path, WHOLE), "clan.nix")
    assert "nix-instantiate, which is not installed" in str(error.value)
    assert "apt-get install nix-bin" in error.value.mend


def test_a_program_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nix-instantiate"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("warren.workspace.nix._TIMEOUT_S", 1.0)
    assert "did not finish within" in problems(write(tmp_path, WHOLE))[0]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


NEWER = """\
error:
       … while evaluating the attribute 'instances'
         at /clan/clan.nix:2:3:
            1| {
            2|   instances = nowhere;
             |   ^

       … from call site
         at «stdin»:1:1:

       error: undefined variable 'nowhere'
       at /clan/clan.nix:2:15:
            1| {
            2|   instances = nowhere;
             |               ^
"""

NEWER_THROW = """\
error:
       … while calling the 'throw' builtin
         at /clan/other.nix:7:9:
            6| {

       error: not
       today
"""


def test_newer_versions_of_nix_print_a_trace() -> None:
    path = Path("/clan/clan.nix")
    assert explain(NEWER, path, "clan.nix") == ("Nix says: undefined variable 'nowhere'", Place(2, 15))
    expected = ("Nix says: not today", Place(7, 9, file="/clan/other.nix"))
    assert explain(NEWER_THROW, path, "clan.nix") == expected
    assert explain("\x1b[31;1merror:\x1b[0m bad", path, "clan.nix") == ("Nix says: bad", Place())
    assert explain("Killed", path, "clan.nix") == ("Nix says: Killed", Place())
