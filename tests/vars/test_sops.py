"""Keys in the vault as sops keeps them, by the real program: what clan's commands would read, and what they wrote."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vars.test_vault import KEYS, LAPTOP1, LAPTOPS_KEY, PHONE1, PHONES_KEY, Operators, Said
from warren.errors import UsageError, VarsError
from warren.vars import sops
from warren.vars.sealed import SECRETS
from warren.wireguard.x25519 import public_key

pytestmark = pytest.mark.slow

PROGRAMS = Path(sys.executable).parent


@dataclass
class SopsOperators(Operators):
    kept_by: str = "sops"

    def may_open(self, *recipients: str) -> None:
        super().may_open(*recipients)
        file = self.folder / "warren.toml"
        file.write_text(f'meta.vault = "{self.kept_by}"\n{file.read_text()}')

    def secret(self, machine: str, file: str = "privatekey") -> Path:
        return super().secret(machine, file).with_name(SECRETS[self.kept_by])

    def opened_by_sops(self, machine: str, identity: str) -> str | None:
        """What the program reads from it, as a clan's operator would."""
        is_age = (self.home / identity).read_text().startswith("#")
        name = "SOPS_AGE_KEY_FILE" if is_age else "SOPS_AGE_SSH_PRIVATE_KEY_FILE"
        command = ("sops", "decrypt", "--input-type", "json", "--output-type", "binary", str(self.secret(machine)))
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={"HOME": "/nonexistent", "PATH": os.environ["PATH"], name: str(self.home / identity)},
        )
        return done.stdout if done.returncode == 0 else None

    def change_vault(self, vault: str) -> None:
        file = self.folder / "warren.toml"
        file.write_text(file.read_text().replace(f'meta.vault = "{self.kept_by}"', f'meta.vault = "{vault}"'))
        self.kept_by = vault

    def files_of(self, machine: str) -> set[str]:
        root = self.folder / "vars/per-machine" / machine / KEYS
        return {str(each.relative_to(root)) for each in root.rglob("*") if each.is_file()}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("PyPI has no sops for this processor")
    monkeypatch.setenv("PATH", f"{PROGRAMS}:{os.environ['PATH']}")


@pytest.fixture
def both(tmp_path: Path) -> SopsOperators:
    """Olga with an identity of age's and Otto with an ssh key; phone1 and laptop1 have keys."""
    made = SopsOperators(tmp_path / "home", tmp_path / "fleet")
    (made.home / ".ssh").mkdir(parents=True)
    made.folder.mkdir()
    made.may_open(made.age_key("olga"), made.ssh_key("otto"))
    made.warren("vars", "set", "laptop1", "ssh-host/ed25519.pub", made.ssh_key("laptop1"))
    made.generate(LAPTOP1, PHONE1)
    return made


def rendered(made: SopsOperators, identity: str, code: int = 0) -> Said:
    return made.warren(
        "render", "phone1", "--format", "wg-quick", "--with-key", "--identity", str(made.home / identity), code=code
    )


def test_sops_opens_it_for_the_operators_and_for_the_machine_and_so_do_we(both: SopsOperators) -> None:
    for identity in ("olga", "otto", "laptop1"):
        text = both.opened_by_sops("laptop1", identity)
        assert text is not None
        assert public_key(both.private_key(LAPTOPS_KEY, identity)).text == both.value(LAPTOPS_KEY)
        assert text.strip() == both.private_key(LAPTOPS_KEY, identity).reveal_text()
    assert both.opened_by_sops("phone1", "laptop1") is None
    with pytest.raises(VarsError, match="none of the identities that sops finds opens it"):
        both.private_key(PHONES_KEY, "laptop1")
    assert both.problems() == []
    assert both.files_of("phone1") == {"publickey/value", "privatekey/secret", "privatekey/recipients"}


def test_a_configuration_is_rendered_with_the_key(both: SopsOperators) -> None:
    said = rendered(both, "olga")
    assert f"PrivateKey = {both.private_key(PHONES_KEY).reveal_text()}" in said.out
    for_phone1 = ("render", "phone1", "--format", "wg-quick", "--with-key")
    assert both.warren(*for_phone1, WARREN_IDENTITY="~/olga").out == said.out
    both.ssh_key("stranger")
    said = rendered(both, "stranger", code=1)
    assert "none of the identities that sops finds opens it" in said.err
    assert "privatekey/secret" in said.err


def test_what_clan_made_is_read_and_taken_over(both: SopsOperators) -> None:
    """A secret of clan's: no record beside it, but links to those who can open it, which stay."""
    before = both.private_key(PHONES_KEY).reveal_text()
    folder = both.secret("phone1").parent
    (folder / "recipients").unlink()
    (folder / "users").mkdir()
    (folder / "users/olga").symlink_to("../../../../../../sops/users/olga")
    assert both.private_key(PHONES_KEY).reveal_text() == before
    said = both.warren("vars", "check", code=1)
    assert "this says nothing of the secret beside it\nmend: warren vars reseal" in said.err
    both.warren("vars", "reseal", "--identity", str(both.home / "olga"))
    assert both.problems() == []
    assert both.private_key(PHONES_KEY).reveal_text() == before
    assert (folder / "users/olga").is_symlink()


def test_secrets_of_clans_are_its_own_while_the_vault_is_kept_by_age(both: SopsOperators) -> None:
    """The mesh's keys that clan made stay there, and nothing is said of them."""
    folder = both.secret("phone1").parent
    (folder / "recipients").unlink()
    before = both.secret("phone1").read_bytes()
    for name in ("laptop1", "phone1"):
        text = (both.folder / "warren.toml").read_text()
        (both.folder / "warren.toml").write_text(text.replace('keys = "vault"', 'keys = "machine"'))
        assert name in text
    both.change_vault("age")
    shutil.rmtree(both.secret("laptop1").parent)
    assert both.problems() == []
    assert "vault" not in both.warren("vars", "check", code=None).err
    assert folder.joinpath("secret").read_bytes() == before


def test_the_vault_moves_from_one_to_the_other_and_back_without_losing_a_key(both: SopsOperators) -> None:
    before = both.private_key(PHONES_KEY).reveal_text()
    for vault in ("age", "sops"):
        former = both.secret("phone1").name
        both.change_vault(vault)
        assert f"is kept as {former}, and shall be as {SECRETS[vault]}" in " ".join(both.problems())
        both.warren("vars", "reseal", "--identity", str(both.home / "olga"))
        assert both.problems() == []
        assert both.private_key(PHONES_KEY).reveal_text() == before
        secrets = {"privatekey/recipients", f"privatekey/{SECRETS[vault]}"}
        assert both.files_of("phone1") == {"publickey/value", *secrets}


def test_who_was_taken_out_cannot_open_what_was_written_after(both: SopsOperators) -> None:
    olga = both.inventory.recipients[0]
    both.may_open(olga)
    assert "can still be opened by ssh-ed25519" in " ".join(both.problems())
    both.warren("vars", "reseal", "--identity", str(both.home / "olga"))
    assert both.opened_by_sops("phone1", "otto") is None
    assert both.opened_by_sops("phone1", "olga") is not None


def test_a_key_is_made_anew_and_the_former_one_stays_until_it_counts(both: SopsOperators) -> None:
    before = both.private_key(LAPTOPS_KEY).reveal_text()
    both.generate(LAPTOP1, stage=True)
    assert both.secret("laptop1", "nextprivatekey").exists()
    assert both.private_key(LAPTOPS_KEY).reveal_text() == before
    both.generate(PHONE1, regenerate=True)
    assert both.files_of("phone1") == {"publickey/value", "privatekey/secret", "privatekey/recipients"}
    both.private_key(PHONES_KEY)


def test_the_operators_own_settings_of_sops_add_nobody_and_leave_nothing_in_clear(
    both: SopsOperators, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = both.age_key("stranger")
    rules = f"creation_rules:\n  - age: {stranger}\n    encrypted_regex: nothing\n"
    (both.folder / ".sops.yaml").write_text(rules)
    monkeypatch.setenv("SOPS_AGE_RECIPIENTS", stranger)
    monkeypatch.chdir(both.folder)
    both.generate(PHONE1, regenerate=True)
    tree = json.loads(both.secret("phone1").read_text())
    assert {each["recipient"] for each in tree["sops"]["age"]} == set(both.inventory.recipients)
    assert tree["data"].startswith("ENC[")


def test_damaged_it_is_said_and_nothing_is_lost(both: SopsOperators) -> None:
    tree = json.loads(both.secret("phone1").read_text())
    tree["data"] = tree["data"].replace("data:", "data:A", 1)
    both.secret("phone1").write_text(json.dumps(tree))
    said = both.warren("vars", "reseal", "--identity", str(both.home / "olga"), code=1)
    assert "privatekey/secret: damaged: " in said.err
    assert json.loads(both.secret("phone1").read_text()) == tree


def test_without_the_program_it_is_said_how_to_go_on(
    both: SopsOperators, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = both.secret("phone1").read_bytes()
    said = both.warren("vars", "generate", "--machine", "phone1", "--regenerate", code=None)
    assert said.code != 0
    assert 'sops is not installed here\nmend: install it; or keep secrets without it: meta.vault = "age"' in said.err
    assert both.secret("phone1").read_bytes() == before
    assert "sops is not installed here" in rendered(both, "olga", code=1).err


def test_nobody_to_encrypt_to_is_no_secret() -> None:
    with pytest.raises(UsageError, match="did not encrypt"):
        sops.seal(b"secret", ["age1nobody"])
