"""The machine's side as a program: its words, its codes, its JSON; and that it runs from one file."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import warren as package
from namespaces import drop_root, in_namespace, sh, wait_until
from operators import KEY, SERVER1, VPN, as_json, document, local_mesh, on_a_machine, request, warren
from warren.agent import main as program
from warren.host import state, timer, trial
from warren.host.machine import Host
from warren.names import MachineName
from warren.network.document import encode

SOURCE = Path(package.__file__).parent.parent


def test_words_that_make_no_sense_are_usage() -> None:
    for words in ([], ["bogus"], ["machine"], ["machine", "bogus"], ["down"], ["machine", "restore"], ["apply", "x"]):
        done = warren(*words)
        assert done.returncode == 2, words
        assert b"usage: warren" in done.stderr
        assert done.stdout == b""


def test_every_command_has_help() -> None:
    for words in (["apply"], ["down"], ["agent"], ["status"], *(["machine", each] for each in (
        "facts", "keygen", "receive", "confirm", "restore", "forget"))):  # fmt: skip
        assert program.__doc__
        assert " ".join(["warren", *words]) in warren(*words, "--help").stdout.decode()


def test_it_says_its_version() -> None:
    assert warren("--version").stdout.decode() == f"warren {package.__version__}\n"


def test_it_starts_with_little() -> None:
    """What a command needs is imported when it runs; a machine of one small core waits for every module."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import warren.agent.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("warren.")}
    assert ours == {"warren.agent", "warren.agent.main", "warren.errors"}
    assert not {"subprocess", "asyncio", "json", "socket", "selectors"} & set(done.stdout.split())


@pytest.mark.root
def test_without_root_there_are_facts_and_nothing_else() -> None:
    def call(*words: str) -> tuple[int, str, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            return program.main(words), out.getvalue(), err.getvalue()

    def check() -> None:
        call("machine", "facts")  # imports what it needs while the interpreter's files can be read
        drop_root()
        code, out, _ = call("machine", "facts")
        assert (code, json.loads(out)["root"]) == (0, False)
        for words in (["apply"], ["status"], ["machine", "keygen", "vpn"], ["machine", "receive"]):
            code, out, err = call(*words)
            assert (code, out) == (2, ""), words
            assert "this needs root" in err

    in_namespace(check)


@pytest.mark.root
def test_a_machine_from_its_first_key_to_nothing_again() -> None:
    def body(host: Host) -> None:
        answer = _json("keygen", "vpn", "home", "--machine", "server1")
        public_keys = answer["public_keys"]
        assert set(public_keys) == {"vpn", "home"}
        assert _json("keygen", "vpn") == {"public_keys": {"vpn": public_keys["vpn"]}}
        assert _json("keygen", "home", "--replace")["public_keys"]["home"] != public_keys["home"]
        assert host.machine_name() == SERVER1

        facts = _json("facts")
        assert facts["machine"] == "server1"
        assert facts["instances"] == {}
        shown = sh(f"ssh-keygen -lf {KEY}.pub").split()[1]
        assert facts["signers"] == [shown]
        assert facts["has"]["nftables"].endswith("/nft")

        received = _json("receive", stdin=as_json(request(document(host, local_mesh(), 7))))
        assert received["instances"]["vpn"]["error"] is None
        assert any(step.startswith("ip link add dev vpn") for step in received["instances"]["vpn"]["steps"])
        assert _json("facts")["trial"]["instances"] == ["vpn"]
        assert "waits to be confirmed" in warren("status").stdout.decode()
        assert _json("confirm", received["token"]) == {"confirmed": received["token"]}
        facts = _json("facts")
        assert facts["trial"] is facts["restored"] is facts["problem"] is None
        found = facts["instances"]["vpn"]
        assert (found["serial"], found["signed"], found["public_key"]) == (7, True, public_keys["vpn"])

        assert _json("forget", "vpn", "home", "other") == {"forgotten": ["vpn", "home", "other"]}
        assert "vpn" not in sh("ip link; cat /etc/hosts; nft list ruleset")
        assert sorted(each.name for each in host.state.iterdir()) == ["machine.name"]

    on_a_machine(body)


@pytest.mark.root
def test_what_fails_has_a_code_words_and_no_json() -> None:
    def body(host: Host) -> None:
        for words, stdin, code, said in (
            (["confirm", "0123"], b"", 4, "nothing waits to be confirmed"),
            (["receive"], b"{", 2, "this is not what `machine receive` reads"),
            (["receive"], b'{"documents": {"v p n": {}}}', 2, "no instance's name"),
            (["receive"], b'{"documents": {}, "confirm_within_s": 0}', 2, "confirm_within_s must be 1 to 3600"),
            (["keygen", "../etc"], b"", 2, "no instance's name"),
        ):
            done = warren("machine", *words, stdin=stdin)
            assert (done.returncode, done.stdout) == (code, b""), words
            assert said in done.stderr.decode()
        assert _json("restore", "0123") == {"restored": False, "why": None, "problems": []}

    on_a_machine(body)


@pytest.mark.root
def test_a_refusal_is_an_answer_and_a_code() -> None:
    def body(host: Host) -> None:
        text = as_json(request(document(host, local_mesh(), 1))).replace(b"laptop1", b"laptop7")
        done = warren("machine", "receive", "--machine", "server1", stdin=text)
        assert done.returncode == 4
        answer = json.loads(done.stdout)
        assert answer["token"] is None
        assert "changed after it was signed" in answer["instances"]["vpn"]["error"]

    on_a_machine(body)


@pytest.mark.root
def test_a_machine_of_another_name_is_left_alone() -> None:
    def body(host: Host) -> None:
        state.write_machine_name(MachineName("laptop1"))
        for words in (["keygen", "vpn"], ["receive"]):
            done = warren("machine", *words, "--machine", "server1", stdin=b'{"documents": {}}')
            assert done.returncode == 2
            assert 'this machine is "laptop1", not "server1"' in done.stderr.decode()
        assert sorted(each.name for each in host.state.iterdir()) == ["machine.name"]

    on_a_machine(body)


@pytest.mark.root
def test_apply_check_apply_and_down_by_hand() -> None:
    def body(host: Host) -> None:
        state.write_machine_name(SERVER1)
        file = Path("/run/network.json")
        file.write_bytes(encode(document(host, local_mesh(), 1)))
        assert warren("apply").returncode == 2
        checked = warren("apply", "--check", "--document", str(file))
        assert checked.returncode == 3
        assert "ip link add dev vpn" in checked.stdout.decode()
        assert host.instances() == ()
        assert warren("apply", "--document", str(file)).returncode == 0
        assert warren("apply", "--check").returncode == 0
        assert warren("apply").returncode == 0
        assert json.loads(warren("status", "--json").stdout)["instances"]["vpn"]["up"] is True
        wrong = warren("down", "vnp")
        assert wrong.returncode == 2
        assert "it has: vpn" in wrong.stderr.decode()
        assert warren("down", "vpn").returncode == 0
        assert "vpn" not in sh("ip link; cat /etc/hosts")
        file.write_text("{}")
        assert warren("apply", "--document", str(file)).returncode == 4

    on_a_machine(body)


@pytest.mark.root
def test_a_trial_that_failed_unseen_is_undone_by_the_next_command() -> None:
    def body(host: Host) -> None:
        state.write_machine_name(SERVER1)
        received = _json("receive", stdin=as_json(request(document(host, local_mesh(), 1))))
        assert received["token"]
        file = host.state / "trial.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "the one before"}))
        assert warren("down", "vpn").returncode in (0, 2)
        assert trial.read(host.state) is None
        assert VPN not in host.instances()
        assert "vpn" not in sh("ip link; cat /etc/hosts")

    on_a_machine(body)


@pytest.mark.root
def test_it_runs_and_goes_back_from_a_zip_archive() -> None:
    """As machines have it: the watchdog is started from the archive, too, which may be gone when it acts."""

    def body(host: Host) -> None:
        state.write_machine_name(SERVER1)
        folder = Path("/run/bundle")
        shutil.copytree(SOURCE / "warren", folder / "warren", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "__main__.py").write_text("import sys\nfrom warren.agent.main import main\nsys.exit(main())\n")
        archive = shutil.make_archive("/run/warren-bundle", "zip", folder)
        shutil.rmtree(folder)
        text = as_json(request(document(host, local_mesh(), 1), confirm_within_s=3.0))
        command = [sys.executable, "-I", archive, "machine", "receive"]
        done = subprocess.run(command, input=text, capture_output=True, check=True)
        Path(archive).unlink()
        assert json.loads(done.stdout)["token"]
        wait_until(lambda: trial.read(host.state) is None, 30.0, "the restore")
        assert "vpn" not in sh("ip link; cat /etc/hosts; nft list ruleset")

    on_a_machine(body)


def test_a_timer_is_started_with_the_warren_that_runs() -> None:
    done = subprocess.run(timer.command("--help"), capture_output=True, text=True, cwd="/", env={}, check=False)
    assert done.returncode == 0
    assert "usage: warren machine" in done.stdout


def _json(*words: str, stdin: bytes = b"") -> Any:
    done = warren("machine", *words, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
