"""Keys in the vault: whoever shall can open them and nobody else, nothing is lost, and nothing shows them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from namespaces import in_namespace, sh
from warren.errors import UsageError, VarsError
from warren.inventory.model import Inventory
from warren.inventory.read import read
from warren.inventory.recipients import recipient_problem
from warren.names import MachineName
from warren.vars import sealing
from warren.vars.generate import Selection, carry_out, work
from warren.vars.generators import Variable
from warren.vars.host_keys import read_host_keys
from warren.vars.sealed import read_sealed
from warren.vars.sealing import Identities
from warren.vars.store import Store
from warren.vars.vault import Vault
from warren.vars.vault_check import vault_problems
from warren.wireguard.keys import PrivateKey, clamp
from warren.wireguard.x25519 import public_key

KEYS = "wireguard-keys-vpn"
PHONE1, LAPTOP1 = MachineName("phone1"), MachineName("laptop1")
PHONES_KEY, LAPTOPS_KEY = Variable(PHONE1, KEYS, "publickey"), Variable(LAPTOP1, KEYS, "publickey")
MESH = """
[machines]
server1 = {}
laptop1 = {}
phone1 = { managed = false, keys = "vault" }

[instances.vpn]
module.name = "wireguard"
roles.controller.machines.server1.settings.endpoint = "vpn1.example.com"
roles.peer.machines.laptop1.settings.keys = "vault"
roles.peer.machines.phone1 = {}
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


@dataclass
class Operators:
    """Olga has an identity of age's, Otto an ssh key, laptop1 its host key; they are files in `home`."""

    home: Path
    folder: Path

    def ssh_key(self, name: str, passphrase: str = "", kind: str = "ed25519") -> str:
        file = self.home / name
        command = ("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", name, "-f", str(file))
        subprocess.run(command, check=True)
        return file.with_suffix(".pub").read_text().strip()

    def age_key(self, name: str) -> str:
        subprocess.run(("age-keygen", "-o", str(self.home / name)), check=True, capture_output=True)
        done = subprocess.run(("age-keygen", "-y", str(self.home / name)), check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def may_open(self, *recipients: str) -> None:
        text = ", ".join(f'"{each}"' for each in recipients)
        (self.folder / "warren.toml").write_text(f"meta.recipients = [{text}]\n{MESH}")

    def warren(self, *words: str, code: int | None = 0, **environment: str) -> Said:
        command = (sys.executable, "-m", "warren", *words)
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("GIT_", "WARREN_", "SSH_"))}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**kept, "HOME": str(self.home), **environment},
            capture_output=True,
            text=True,
        )
        assert code is None or done.returncode == code, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def secret(self, machine: str, file: str = "privatekey") -> Path:
        return self.folder / "vars/per-machine" / machine / KEYS / file / "secret.age"

    def opened_by_age(self, machine: str, identity: str) -> str | None:
        """What Debian's own program reads from it."""
        command = ("age", "--decrypt", "--identity", str(self.home / identity), str(self.secret(machine)))
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else None

    def value(self, variable: Variable) -> str:
        return (self.folder / variable.path).read_text().strip()

    @property
    def inventory(self) -> Inventory:
        return read((self.folder / "warren.toml").read_text(), "toml", "warren.toml")

    @property
    def store(self) -> Store:
        return Store(self.folder)

    @property
    def vault(self) -> Vault:
        return Vault(self.store, self.inventory, read_host_keys(self.store, self.inventory))

    def generate(self, *machines: MachineName, stage: bool = False, regenerate: bool = False) -> None:
        """As `warren vars generate` does, without asking anybody. `stage`: the machines follow a document."""
        texts = self.store.read().texts
        follows = frozenset((each, next(iter(self.inventory.instances))) for each in machines if stage)
        todo = work(self.inventory, texts, Selection(frozenset(), frozenset(machines), stage or regenerate, follows))
        for failure in carry_out(todo, self.store, [], lambda *_: None, self.vault):
            raise VarsError(failure.message)

    def problems(self) -> list[str]:
        return [each.message for each in vault_problems(self.inventory, self.store.read().texts, self.vault)]

    def private_key(self, variable: Variable, identity: str = "olga") -> PrivateKey:
        key = self.vault.private_key(variable, self.value(variable), Identities(str(self.home / identity)))
        assert public_key(key).text == self.value(variable)
        return key


@pytest.fixture
def operators(tmp_path: Path) -> Operators:
    made = Operators(tmp_path / "home", tmp_path / "fleet")
    (made.home / ".ssh").mkdir(parents=True)
    made.folder.mkdir()
    return made


@pytest.fixture
def olga_and_otto(operators: Operators) -> Iterator[Operators]:
    operators.may_open(operators.age_key("olga"), operators.ssh_key("otto"))
    host_key = operators.ssh_key("laptop1")
    operators.warren("vars", "set", "laptop1", "ssh-host/ed25519.pub", host_key)
    operators.generate(LAPTOP1, PHONE1)
    yield operators
    assert [each for each in operators.folder.rglob("*") if "staging" in each.name] == []


def test_ages_own_program_opens_it_for_the_operators_and_for_the_machine(olga_and_otto: Operators) -> None:
    for identity in ("olga", "otto", "laptop1"):
        text = olga_and_otto.opened_by_age("laptop1", identity)
        assert text is not None
        wg = subprocess.run(("wg", "pubkey"), input=text, capture_output=True, text=True, check=True)
        assert wg.stdout.strip() == olga_and_otto.value(LAPTOPS_KEY)
        assert clamp(b64decode(text)) == b64decode(text)
    assert olga_and_otto.opened_by_age("phone1", "olga")
    assert olga_and_otto.opened_by_age("phone1", "laptop1") is None
    assert olga_and_otto.problems() == []


def test_a_key_of_the_vault_is_not_to_be_made_by_hand(operators: Operators) -> None:
    operators.may_open(operators.age_key("olga"))
    assert operators.warren("check").err == ""
    said = operators.warren("vars", "check", code=1)
    assert f"missing: phone1 {KEYS}/publickey\nmend: warren vars generate" in said.err
    said = operators.warren("vars", "generate", "--machine", "phone1")
    assert "phone1 is not managed: warren render phone1 --format qr --with-key, or another format" in said.err
    assert "wg genkey" not in said.err
    first = operators.value(PHONES_KEY)
    operators.warren("vars", "generate", "--machine", "phone1", "--regenerate")
    assert operators.value(PHONES_KEY) != first
    operators.private_key(PHONES_KEY)


def test_fix_makes_keys_of_the_vault_too(operators: Operators) -> None:
    operators.may_open(operators.age_key("olga"))
    assert f"phone1 {KEYS}/publickey: made here" in operators.warren("vars", "fix", "--dry-run", code=3).err
    operators.warren("vars", "fix", "--machine", "phone1")
    operators.private_key(PHONES_KEY)


def test_nothing_else_is_made(olga_and_otto: Operators) -> None:
    files = {str(each.relative_to(olga_and_otto.folder)) for each in olga_and_otto.folder.rglob("*") if each.is_file()}
    keys = {f"{KEYS}/publickey/value", f"{KEYS}/privatekey/secret.age", f"{KEYS}/privatekey/recipients"}
    own = {f"vars/per-machine/{name}/{each}" for name in ("laptop1", "phone1") for each in keys}
    network = ("suffix/value", ".validation-hash")
    addresses = {
        f"vars/per-machine/{name}/wireguard-network-vpn/{file}" for name in ("laptop1", "phone1") for file in network
    }
    assert files == own | addresses | {"warren.toml", "vars/per-machine/laptop1/ssh-host/ed25519.pub/value"}


def test_who_was_taken_out_cannot_open_what_was_written_after(olga_and_otto: Operators) -> None:
    olga = olga_and_otto.inventory.recipients[0]
    before = olga_and_otto.value(PHONES_KEY)
    olga_and_otto.may_open(olga)
    said = olga_and_otto.warren("vars", "check", code=1)
    assert said.err.count("can still be opened by ssh-ed25519 …") == 2
    assert "mend: warren vars reseal" in said.err
    said = olga_and_otto.warren("vars", "reseal", "--identity", str(olga_and_otto.home / "olga"))
    assert said.err.count("who may have kept what he read: rotate the key") == 2
    assert olga_and_otto.problems() == []
    assert [olga_and_otto.opened_by_age(name, "otto") for name in ("laptop1", "phone1")] == [None, None]
    assert olga_and_otto.opened_by_age("laptop1", "olga")
    assert olga_and_otto.opened_by_age("laptop1", "laptop1")
    assert olga_and_otto.value(PHONES_KEY) == before
    olga_and_otto.generate(PHONE1, regenerate=True)
    assert olga_and_otto.value(PHONES_KEY) != before
    assert olga_and_otto.opened_by_age("phone1", "otto") is None
    olga_and_otto.private_key(PHONES_KEY)


def test_who_comes_can_open_everything(olga_and_otto: Operators) -> None:
    olga_and_otto.may_open(*olga_and_otto.inventory.recipients, olga_and_otto.ssh_key("rita", kind="rsa"))
    assert len(olga_and_otto.problems()) == 2
    assert "cannot be opened by ssh-rsa …" in olga_and_otto.problems()[0]
    said = olga_and_otto.warren("vars", "reseal", "--identity", str(olga_and_otto.home / "rita"), code=1)
    assert said.err.count("none of your identities opens it") == 2
    olga_and_otto.warren("vars", "reseal", WARREN_IDENTITY=str(olga_and_otto.home / "otto"))
    assert olga_and_otto.opened_by_age("phone1", "rita")
    assert olga_and_otto.problems() == []
    content = olga_and_otto.secret("phone1").read_bytes()
    olga_and_otto.warren("vars", "reseal", WARREN_IDENTITY=str(olga_and_otto.home / "otto"))
    assert olga_and_otto.secret("phone1").read_bytes() == content  # what is right is left alone


def test_a_machine_that_was_set_up_anew_can_open_its_key_after_a_reseal(olga_and_otto: Operators) -> None:
    host_key = olga_and_otto.ssh_key("laptop1-anew")
    olga_and_otto.warren("vars", "set", "laptop1", "ssh-host/ed25519.pub", host_key)
    (problem,) = olga_and_otto.problems()
    assert problem.startswith("cannot be opened by laptop1 itself (its ssh host key) yet; can still be opened by ssh-")
    olga_and_otto.warren("vars", "reseal", "--identity", str(olga_and_otto.home / "olga"))
    assert olga_and_otto.opened_by_age("laptop1", "laptop1-anew")
    assert olga_and_otto.opened_by_age("laptop1", "laptop1") is None


def test_a_host_key_of_clans_is_read(operators: Operators) -> None:
    operators.may_open(operators.age_key("olga"))
    path = operators.folder / "vars/per-machine/laptop1/openssh/ssh.id_ed25519.pub/value"
    path.parent.mkdir(parents=True)
    path.write_text(operators.ssh_key("laptop1"))
    operators.generate(LAPTOP1)
    assert operators.opened_by_age("laptop1", "laptop1")
    path.write_text("ssh-ed25519 AAAA")
    assert "ssh_host_ed25519_key.pub" in operators.warren("vars", "check", code=1).err


def test_identities_are_found_where_they_usually_are(olga_and_otto: Operators) -> None:
    operators, home = olga_and_otto, olga_and_otto.home
    words = ("render", "phone1", "--format", "wg-quick", "--with-key")
    said = operators.warren(*words, code=1)
    assert said.err.splitlines()[-2].endswith("there is no identity to open it with")
    operators.ssh_key(".ssh/id_ed25519", passphrase="correct horse")
    said = operators.warren(*words, code=1)
    assert "~/.ssh/id_ed25519: ssh keys with a passphrase cannot be used here" in said.err
    (home / ".config/sops/age").mkdir(parents=True)
    (home / ".config/sops/age/keys.txt").write_bytes((home / "olga").read_bytes())
    text = operators.private_key(PHONES_KEY).reveal_text()
    assert f"PrivateKey = {text}" in operators.warren(*words).out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "neither an identity of age's nor a private key of ssh's"),
        ("AGE-SECRET-KEY-" + "1QQQQ", "neither an identity"),
        ("AGE-SECRET-KEY-" + "PQ-1QQQQ", "neither an identity"),
        ("age-encryption.org/v1\n", "nobody is there to ask"),
    ],
)
def test_what_is_no_identity_is_refused_and_not_repeated(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "identity").write_text(content)
    with pytest.raises(UsageError, match=words) as error:
        Identities(str(tmp_path / "identity")).are_at_hand()
    assert "QQQQ" not in str(error.value)
    with pytest.raises(UsageError, match="cannot be read"):
        Identities(str(tmp_path)).are_at_hand()


def test_other_ssh_keys_are_refused_with_the_reason(operators: Operators) -> None:
    public = operators.ssh_key("ecdsa", kind="ecdsa")
    with pytest.raises(UsageError, match="ssh-ed25519 and ssh-rsa alone"):
        Identities(str(operators.home / "ecdsa")).are_at_hand()
    assert recipient_problem(public) is not None


def test_recipients_that_are_taken_are_those_that_age_takes(operators: Operators) -> None:
    good = operators.age_key("olga")
    for text in (good, operators.ssh_key("otto"), operators.ssh_key("rita", kind="rsa")):
        assert recipient_problem(text) is None
        sealing.seal(b"x", [" ".join(text.split()[:2])])
    for position in range(4, len(good)):
        damaged = f"{good[:position]}{'q' if good[position] != 'q' else 'p'}{good[position + 1 :]}"
        assert recipient_problem(damaged) is not None
        with pytest.raises(UsageError, match="cannot be encrypted to"):
            sealing.seal(b"x", [damaged])


def test_an_identity_with_a_passphrase_is_asked_for_it(operators: Operators) -> None:
    public = operators.age_key("plain")
    import pyrage

    locked = pyrage.passphrase.encrypt((operators.home / "plain").read_bytes(), "correct horse")
    (operators.home / "locked").write_bytes(locked)
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return "correct horse"

    text = sealing.seal(b"content", [public])
    identities = Identities(str(operators.home / "locked"), ask)
    assert [identities.open(text), identities.open(text)] == [b"content", b"content"]
    assert asked == [str(operators.home / "locked")]
    with pytest.raises(UsageError, match="this is not its passphrase"):
        Identities(str(operators.home / "locked"), lambda _: "wrong").are_at_hand()


def test_a_next_key_waits_and_takes_the_place_when_it_counts(olga_and_otto: Operators) -> None:
    operators = olga_and_otto
    first, staged = operators.value(LAPTOPS_KEY), LAPTOPS_KEY._replace(file="nextkey")
    operators.generate(LAPTOP1, stage=True)
    second = operators.value(staged)
    assert operators.value(LAPTOPS_KEY) == first != second
    operators.private_key(LAPTOPS_KEY)
    operators.private_key(staged)
    operators.generate(LAPTOP1, stage=True)
    assert operators.value(staged) == second  # whoever asks again gets the same
    assert operators.problems() == []
    # As the rotation does it: the public values first.
    operators.store.write({LAPTOPS_KEY._replace(file="formerkey"): first, LAPTOPS_KEY: second})
    operators.store.delete([staged])
    operators.private_key(LAPTOPS_KEY)  # before the files are where they belong, too
    operators.vault.settle(operators.store.read().texts)
    operators.private_key(LAPTOPS_KEY)
    assert not operators.secret("laptop1", "nextprivatekey").exists()
    assert operators.problems() == []


def test_a_key_that_a_machine_made_is_not_said_to_be_here(olga_and_otto: Operators) -> None:
    """A machine that comes to the vault: its key is rotated into it."""
    operators = olga_and_otto
    operators.vault.remove(operators.vault.of(LAPTOP1))
    (problem,) = operators.problems()
    assert problem == f"the private half of publickey {operators.value(LAPTOPS_KEY)[:8]}… is not in the vault"
    with pytest.raises(VarsError, match="does not have the private half"):
        operators.private_key(LAPTOPS_KEY)
    operators.generate(LAPTOP1, stage=True)
    operators.private_key(LAPTOPS_KEY._replace(file="nextkey"))


def test_what_is_left_over_is_named(olga_and_otto: Operators) -> None:
    text = (olga_and_otto.folder / "warren.toml").read_text()
    (olga_and_otto.folder / "warren.toml").write_text(
        text.replace('settings.keys = "vault"', 'settings.keys = "machine"')
    )
    (problem,) = olga_and_otto.problems()
    assert problem.startswith("left over: nothing uses the key")


@pytest.mark.parametrize("damage", [lambda text: text[:-60], lambda text: text[:40], lambda _: "", lambda _: "-----"])
def test_a_half_written_secret_is_said_and_stops_nothing_else(olga_and_otto: Operators, damage) -> None:  # type: ignore[no-untyped-def]
    operators = olga_and_otto
    path = operators.secret("laptop1")
    path.write_text(damage(path.read_text()))
    damaged = path.read_bytes()
    olga = operators.inventory.recipients[0]
    operators.may_open(olga)
    said = operators.warren("vars", "reseal", "--identity", str(operators.home / "olga"), code=1)
    assert "laptop1/wireguard-keys-vpn/privatekey/secret.age: damaged: " in said.err
    assert "git log" in said.err
    assert path.read_bytes() == damaged
    assert operators.opened_by_age("phone1", "otto") is None  # the others went on
    assert operators.opened_by_age("phone1", "olga")


def test_a_record_of_another_file_is_not_believed(olga_and_otto: Operators) -> None:
    operators = olga_and_otto
    record = operators.secret("laptop1").with_name("recipients")
    record.write_bytes(operators.secret("phone1").with_name("recipients").read_bytes())
    assert operators.problems() == ["this says nothing of the secret beside it"]
    operators.private_key(LAPTOPS_KEY)
    operators.warren("vars", "reseal", "--identity", str(operators.home / "olga"))
    assert operators.problems() == []


def test_anothers_key_in_the_place_of_its_own_is_not_taken(olga_and_otto: Operators) -> None:
    for leaf in ("secret.age", "recipients"):
        content = olga_and_otto.secret("phone1").with_name(leaf).read_bytes()
        olga_and_otto.secret("laptop1").with_name(leaf).write_bytes(content)
    with pytest.raises(VarsError, match="does not have the private half"):
        olga_and_otto.private_key(LAPTOPS_KEY)
    assert len(olga_and_otto.problems()) == 2  # its own is missing, and this one is nobody's there


def killed(act: str, operators: Operators, after: int) -> bool:
    """Do it in a process that dies before its rename or removal number `after`; whether there were so many."""
    child = os.fork()
    if child == 0:
        left = [after]
        for name in ("replace", "unlink"):
            real = getattr(Path, name)

            def counted(*arguments, real=real, **more):  # type: ignore[no-untyped-def]
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return real(*arguments, **more)

            setattr(Path, name, counted)
        if act == "reseal":
            operators.vault.reseal(operators.store.read().texts, Identities(str(operators.home / "olga")))
        else:
            operators.generate(LAPTOP1, stage=act == "stage", regenerate=act == "replace")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("act", ["replace", "stage", "reseal"])
def test_whenever_it_is_killed_the_key_that_counts_is_there(olga_and_otto: Operators, act: str) -> None:
    operators = olga_and_otto
    everybody = operators.inventory.recipients
    after = 0
    for after in range(100):
        operators.may_open(*(everybody if after % 2 else everybody[:1]))
        was_killed = killed(act, operators, after)
        operators.private_key(LAPTOPS_KEY)
        staged = LAPTOPS_KEY._replace(file="nextkey")
        if staged in operators.store.read().texts:
            operators.private_key(staged)
        operators.vault.reseal(operators.store.read().texts, Identities(str(operators.home / "olga")))
        operators.private_key(LAPTOPS_KEY)
        if not was_killed:
            break
        if act == "stage":
            operators.store.delete([staged])
    assert after >= 3
    assert [each for each in operators.problems() if not each.startswith("left over")] == []


@pytest.mark.root
def test_on_a_full_disk_the_value_before_stays(olga_and_otto: Operators) -> None:
    """At each point where the room may end."""
    before = olga_and_otto.value(LAPTOPS_KEY)
    said = in_namespace(_without_room, olga_and_otto)
    assert len(said) > 3
    assert said[-1] == ""
    assert {each.partition("\n")[0].rpartition(": ")[2] for each in said[:-1]} == {"no space left on device"}
    assert olga_and_otto.value(LAPTOPS_KEY) == before  # outside of that namespace


def _without_room(operators: Operators) -> list[str]:
    said = []
    copied = Operators(operators.home, Path("/run/warren/fleet"))
    sh("mkdir /run/warren")
    for free_pages in range(40):
        sh("mount -t tmpfs -o size=400k,mode=755 none /run/warren")
        sh(f"cp -r {operators.folder} /run/warren/fleet")
        before = copied.private_key(LAPTOPS_KEY)
        sh("dd if=/dev/zero of=/run/warren/fill bs=4k 2> /dev/null || :")
        sh(f"truncate -s $(( $(stat -c %s /run/warren/fill) - {4096 * free_pages} )) /run/warren/fill")
        try:
            copied.generate(LAPTOP1, regenerate=True)
            said.append("")
        except VarsError as error:
            said.append(str(error))
        now = copied.private_key(LAPTOPS_KEY)
        assert (now == before) == bool(said[-1]) or copied.secret("laptop1", "nextprivatekey").exists()
        sh("umount /run/warren")
        if not said[-1]:
            break
    return said


@pytest.mark.root
def test_closed_files_and_folders_are_named_and_nothing_changes(olga_and_otto: Operators) -> None:
    """Root sees through permissions, so this runs as nobody."""
    unreadable, unwritable = in_namespace(_as_nobody, olga_and_otto)
    assert "laptop1/wireguard-keys-vpn/privatekey/secret.age: cannot be read: permission denied" in unreadable
    assert "cannot be written: permission denied" in unwritable


def _as_nobody(operators: Operators) -> tuple[str, str]:
    sh(f"mkdir /run/warren; cp -r {operators.folder} {operators.home} /run/warren; chown -R 65534 /run/warren")
    copied = Operators(Path("/run/warren/home"), Path("/run/warren/fleet"))
    os.setresuid(65534, 65534, 65534)
    copied.secret("phone1").parent.chmod(0o500)
    copied.may_open(copied.inventory.recipients[0])
    before = copied.secret("phone1").read_bytes()
    said = []
    for closed in (True, False):
        copied.secret("laptop1").chmod(0 if closed else 0o600)
        try:
            copied.vault.reseal(copied.store.read().texts, Identities(str(copied.home / "olga")))
        except VarsError as error:
            said.append(str(error))
    assert copied.secret("phone1").read_bytes() == before
    return said[0], said[1]


def forms(key: PrivateKey) -> list[str]:
    """How a key could stand in a text."""
    raw = key.reveal()
    return [key.reveal_text()[:20], key.reveal_text()[22:-2], raw.hex(), raw.hex().upper(), repr(raw)[2:30]]


def assert_hidden(text: str, *keys: PrivateKey) -> None:
    assert not [form for key in keys for form in forms(key) if form in text]


def test_no_command_shows_a_key_that_was_not_asked_for(olga_and_otto: Operators) -> None:
    operators = olga_and_otto
    server = public_key(PrivateKey(bytes(32))).text
    operators.warren("vars", "set", "server1", f"{KEYS}/publickey", server)
    operators.generate()
    keys = [operators.private_key(each) for each in (PHONES_KEY, LAPTOPS_KEY)]
    place = f"{KEYS}/privatekey"
    commands = (
        "check", "check --json", "show", "show --json", "document vpn", "topology", "plan laptop1",
        "plan phone1 --json",
        "render phone1 --format wg-quick", "render phone1 --format nixos --with-key", "render phone1 --format qr",
        "vars list", "vars list --json", "vars check --json", f"vars get phone1 {place}",
        f"vars get phone1 {KEYS}/publickey",
        "vars generate", "vars reseal", "machines list --json", "vars upload laptop1", "vars upload phone1",
        "vars generate --regenerate --machine phone1 --no-commit",
    )  # fmt: skip
    for line in commands:
        said = operators.warren(*line.split(), code=None, WARREN_IDENTITY=str(operators.home / "olga"))
        assert_hidden(said.out + said.err, *keys)
        assert said.code != 70, said.err
        assert line != f"vars get phone1 {place}" or "a secret, which stays sealed" in said.err
    assert_hidden(operators.warren("render", "laptop1", "--format", "networkd").out, *keys)
    with pytest.raises(AssertionError):  # that it would be seen
        assert_hidden(keys[0].reveal_text(), *keys)


_CRASH = """\
import sys
from warren.cli import main
from warren.vars import sealing, vault
real = sealing.Identities.open
def crash(self, text):
    content = real(self, text)
    raise RuntimeError("made up")
def late(text, *more):
    raise RuntimeError("made up, later")
if sys.argv.pop() == "opened":
    sealing.Identities.open = crash
else:
    vault.public_key = late
main()
"""


@pytest.mark.parametrize("when", ["opened", "parsed"])
def test_a_crash_report_has_no_key(olga_and_otto: Operators, when: str) -> None:
    operators = olga_and_otto
    key = operators.private_key(PHONES_KEY)
    command = (sys.executable, "-c", _CRASH, "render", "phone1", "--format", "wg-quick", "--with-key",
               "--identity", str(operators.home / "olga"), when)  # fmt: skip
    done = subprocess.run(command, cwd=operators.folder, capture_output=True, text=True)
    assert done.returncode == 70
    assert "made up" in done.stderr
    assert_hidden(done.stdout + done.stderr, key)


def test_damaged_files_say_nothing_of_keys(olga_and_otto: Operators) -> None:
    """Each of some hundred bytes is changed, in the secret, its record and the identity."""
    operators = olga_and_otto
    key = operators.private_key(PHONES_KEY)
    identity = (operators.home / "olga").read_text().splitlines()[-1]
    for path in (
        operators.secret("phone1"),
        operators.secret("phone1").with_name("recipients"),
        operators.home / "olga",
    ):
        good = path.read_bytes()
        for position in range(0, len(good), max(1, len(good) // 120)):
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            said = "".join(operators.problems())
            try:
                assert operators.private_key(PHONES_KEY) == key
            except (VarsError, UsageError) as error:
                said += f"{error} {error!r}"
            assert_hidden(said, key)
            assert identity[:30] not in said
        path.write_bytes(good)


def test_what_cannot_be_read_later_is_not_overwritten(olga_and_otto: Operators) -> None:
    """The place of the next key has the only copy of the one that counts, and its record is gone."""
    operators = olga_and_otto
    first, following = operators.secret("laptop1").parent, operators.secret("laptop1", "nextprivatekey").parent
    first.rename(following)
    (following / "recipients").unlink()
    with pytest.raises(VarsError, match="it is not known which key this is"):
        operators.generate(LAPTOP1, stage=True)
    operators.private_key(LAPTOPS_KEY)
    operators.warren("vars", "reseal", "--identity", str(operators.home / "olga"))
    assert first.exists()
    operators.generate(LAPTOP1, stage=True)
    operators.private_key(LAPTOPS_KEY)


def on_a_terminal(operators: Operators, *words: str) -> tuple[int, str]:
    """What a terminal of 120 columns and 60 rows is sent, whose user presses Enter."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HOME": str(operators.home), "COLUMNS": "120", "LINES": "60"}
    command = (sys.executable, "-m", "warren", *words, "--identity", str(operators.home / "olga"))
    with subprocess.Popen(
        command, cwd=operators.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as run:
        os.close(theirs)
        sent = b""
        enter = threading.Event()
        while part := _part(ours):
            sent += part
            if b"Enter takes it away" in sent and not enter.is_set():
                enter.set()
                os.write(ours, b"\n")
        os.close(ours)
    return run.returncode, sent.decode()


def _part(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def test_a_terminal_keeps_no_private_key(olga_and_otto: Operators) -> None:
    operators = olga_and_otto
    operators.warren("vars", "set", "server1", f"{KEYS}/publickey", public_key(PrivateKey(bytes(32))).text)
    operators.generate()
    key = operators.private_key(PHONES_KEY)
    code, sent = on_a_terminal(operators, "render", "phone1", "--format", "wg-quick", "--with-key")
    assert code == 2
    assert "would stay in the terminal" in sent
    assert_hidden(sent, key)
    code, sent = on_a_terminal(operators, "render", "phone1", "--format", "qr", "--with-key")
    assert code == 0
    before, _, shown = sent.partition("\x1b[?1049h")
    assert "▄" in shown
    assert "▄" not in before
    assert re.search(r"\x1b\[\?1049l$", shown)
    piped = operators.warren(
        "render", "phone1", "--format", "wg-quick", "--with-key", "--identity", str(operators.home / "olga")
    )
    assert key.reveal_text() in piped.out


def test_a_fleet_without_a_vault_does_not_import_age(operators: Operators) -> None:
    text = MESH.replace(', keys = "vault"', "").replace('.settings.keys = "vault"', " = {}")
    (operators.folder / "warren.toml").write_text(text)
    program = "import sys; from warren.cli import main\ntry: main()\nfinally: print('pyrage' in sys.modules)"
    for words in (("vars", "check"), ("check",), ("show",), ("vars", "generate")):
        done = subprocess.run(
            (sys.executable, "-c", program, *words), cwd=operators.folder, capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert read_sealed(operators.store) == {}
