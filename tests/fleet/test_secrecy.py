"""Private keys stay where they are made, preshared ones at their two ends.

They are searched for in every place that a life of a mesh writes to.
"""

from __future__ import annotations

import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.fleets import FOLDER, OPERATOR, Fleet, all_pairs, fleet
from lab.labs import DEMO, MACHINES

pytestmark = [pytest.mark.root, pytest.mark.lab]

KEYS, PRESHARED_KEYS = "wireguard-keys-vpn", "wireguard-psk-vpn"
INVENTORY = DEMO.replace('module.name = "wireguard"\n', 'module.name = "wireguard"\npsk = true\n')

# In place of ssh: what goes in and comes out is kept as it is before it is encrypted.
CAPTURING_SSH = """\
#!/bin/bash
kept=$(mktemp -p /root/captured)
printf '%s\\n' "$@" > "$kept.words"
tee "$kept.in" | ssh "$@" > >(tee "$kept.out") 2> >(tee "$kept.err" >&2)
exit "${PIPESTATUS[1]}"
"""

# Prints the files below the named folders, written since a moment, that hold one of the keys, which come on stdin, in
# some form. Its own list of them, and the key files themselves, are where they have to be.
SEARCH = """\
import os, sys
from base64 import b64encode
OWN = ("private.key", "preshared.keys", "keys")
wanted = []
for line in sys.stdin:
    raw = bytes.fromhex(line)
    wanted += [raw, b64encode(raw).rstrip(b"="), raw.hex().encode(), raw.hex().upper().encode()]
for folder in sys.argv[2:]:
    for place, _, names in os.walk(folder):
        for path in (os.path.join(place, name) for name in names if name not in OWN):
            try:
                is_new = os.path.isfile(path) and os.stat(path).st_ctime >= float(sys.argv[1])
                content = open(path, "rb").read() if is_new else b""
            except OSError:
                continue
            if any(each in content for each in wanted):
                print(path)
"""

# All that /proc says of any process's command line and environment, again and again.
SAMPLE = """\
import os, time
seen = set()
while not os.path.exists("/run/sampled-enough"):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for what in ("cmdline", "environ"):
            try:
                seen.add(open(f"/proc/{pid}/{what}", "rb").read())
            except OSError:
                pass
    time.sleep(0.002)
with open("/run/sampled.new", "wb") as file:
    file.write(b"\\n".join(seen))
os.rename("/run/sampled.new", "/run/sampled")
"""


@contextmanager
def sampled(made: Fleet) -> Iterator[None]:
    """Processes of all machines, meanwhile; what was seen is on the operator's machine afterwards."""
    made.run(_start_sampling)
    yield
    seen = made.run(_stop_sampling)
    assert "machine receive" in seen.replace("\0", " "), "it saw too little to say anything"
    made.write("/root/captured/processes", seen)


def _start_sampling() -> None:
    subprocess.Popen([sys.executable, "-c", SAMPLE], start_new_session=True)


def _stop_sampling() -> str:
    Path("/run/sampled-enough").touch()
    while not Path("/run/sampled").exists():
        time.sleep(0.01)
    return Path("/run/sampled").read_text("latin-1")


def private_keys(made: Fleet) -> set[bytes]:
    """Of all machines, as they are now; WireGuard's own view among them."""
    texts: set[str] = set()
    for name in MACHINES:
        texts.update(made.sh(name, "cat /var/lib/warren/vpn/private.key*").split())
        texts.update(made.sh(name, "wg show vpn private-key || :").split())
    return {b64decode(text) for text in texts if text != "(none)"}


def preshared_keys(made: Fleet) -> set[bytes]:
    """The same of preshared ones."""
    texts: set[str] = set()
    for name in MACHINES:
        texts.update(made.sh(name, "cut -d ' ' -f 5 /var/lib/warren/vpn/preshared.keys").split())
        texts.update(made.sh(name, "wg show vpn preshared-keys | cut -f 2").split())
    return {b64decode(text) for text in texts if text not in ("(none)", "-")}


def found(made: Fleet, machine: str, keys: set[bytes], since_unix_s: float, *folders: str) -> list[str]:
    made.write("/run/keys", "".join(f"{key.hex()}\n" for key in keys), machine, 0o600)
    made.write("/run/search.py", SEARCH, machine)
    said = made.sh(
        machine, f"{sys.executable} /run/search.py {since_unix_s} {' '.join(folders)} < /run/keys; rm /run/keys"
    )
    return said.split()


def test_no_key_is_anywhere_but_in_its_file() -> None:
    keys: set[bytes] = set()
    preshared: set[bytes] = set()
    began_unix_s = time.time() - 1
    with fleet(INVENTORY) as made:
        made.write("/root/ssh", CAPTURING_SSH, mode=0o755)
        made.sh(OPERATOR, "mkdir /root/captured /root/said")

        def warren(*words: str) -> None:
            command = ("env", "WARREN_SSH=/root/ssh", sys.executable, "-m", "warren", *words)
            said = made.on(OPERATOR, *command, code=None)
            assert said.code == 0, str(said)
            made.write(f"/root/said/{'-'.join(words).replace('/', '-')}", said.out + said.err)

        with sampled(made):
            warren("machines", "install", "--tag", "all")
            made.start_agents(MACHINES)
            warren("machines", "update")
            assert made.failing(all_pairs(MACHINES)) == []
            keys |= private_keys(made)
            preshared |= preshared_keys(made)
            warren("vars", "generate", "--service", KEYS, "--regenerate", "--machine", "laptop1")
            warren("vars", "generate", "--service", PRESHARED_KEYS, "--regenerate", "--machine", "laptop2")
            keys |= private_keys(made)
            preshared |= preshared_keys(made)
            warren("machines", "update")
            keys |= private_keys(made)
            warren("machines", "revoke", "laptop3")
            warren("machines", "update", "server1", "server2", "laptop1", "laptop2")
            for line in ("plan", "show", "status --json", "vars list"):
                warren(*line.split())
            for name in MACHINES:
                for words in ("warren status --json", "warren status", "warren apply --check"):
                    said = made.on(name, "sh", "-c", f"{words} 2>&1", code=None)
                    made.write(f"/root/said/{name}-{words.replace(' ', '-')}", said.out)
        assert len(keys) == len(MACHINES) + 1
        assert len(preshared) == 7 + 2

        folder = f"git -C {FOLDER} cat-file --batch-all-objects --batch"
        made.sh(OPERATOR, f"{folder} > /root/captured/objects; test -s /root/captured/objects")
        assert '"documents"' in made.sh(OPERATOR, "cat /root/captured/*.in")  # there was something to see
        assert '"public_keys"' in made.sh(OPERATOR, "cat /root/captured/*.out")
        assert '"sealed"' in made.sh(OPERATOR, "cat /root/captured/*.in")
        places = ("/root/fleet", "/root/captured", "/root/said", "/root/.ssh", "/run", "/tmp", "/var", "/etc")
        for name in (OPERATOR, *MACHINES):
            assert (
                found(made, name, keys | preshared, began_unix_s, *places, "/usr/local/bin", "/usr/local/lib/warren")
                == []
            )

        key = keys.pop()
        for form in (f"x{key.hex()}", f"\\\\x{key.hex().upper()}"):  # that the search finds something
            made.write("/root/captured/planted", form)
            assert found(made, OPERATOR, {key}, began_unix_s, "/root/captured") == ["/root/captured/planted"]


def test_a_process_that_holds_a_key_leaves_no_core_dump() -> None:
    with fleet(DEMO) as made:
        made.warren("machines", "install", "laptop1")
        made.start_agents(["laptop1"])
        made.warren("machines", "install", "server1", "server2")
        made.warren("machines", "update", "server1", "server2", "laptop1")
        limits = made.sh(
            "laptop1",
            "for each in $(pgrep -f 'warren.pyz agent') $(pgrep wireguard-go); do cat /proc/$each/limits; done",
        )
        lines = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        assert len(lines) >= 2
        assert {line[4] for line in lines} == {"0"}
