"""An operator and a machine of his, as far as documents go: signed on one side, received on the other.

The machine is a namespace with files of its own: /etc with the operator's key, /var/lib, /run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from meshes import inventory, mesh
from namespaces import Namespace, in_namespace, sh
from strategies import public_key
from warren.agent import receive
from warren.agent.receive import Answer, Request, Signed
from warren.host import keys, state
from warren.host.machine import Host
from warren.host.signature import ALLOWED_SIGNERS
from warren.inventory.model import Instance, Inventory
from warren.names import InstanceName, MachineName
from warren.network.document import Document, encode
from warren.network.resolve import resolve
from warren.network.stored import Stored
from warren.wireguard.endpoint import Endpoint

T = TypeVar("T")

VPN, HOME = InstanceName("vpn"), InstanceName("home")
SERVER1, LAPTOP1 = MachineName("server1"), MachineName("laptop1")
KEY = Path("/run/operator")
SNAPSHOT = (
    "(ip -6 addr; ip -6 route) | grep -v fe80; ip link; nft list ruleset;"
    "for each in $(wg show interfaces); do"
    # They come in any order.
    "  wg show $each allowed-ips | tr ' \\t' '\\n\\n' | sort; wg show $each endpoints | sort; done;"
    "cat /etc/hosts; sysctl -ae 2>/dev/null | grep ipv6.*forward; cd /var/lib;"
    # What a killed process was about to rename is replaced or removed by the next who writes there.
    "find . -type f ! -name '.*.warren-new' -exec sha256sum {} + | sort"
)


def on_a_machine(body: Callable[[Host], T], *, timeout_s: float = 240.0) -> T:
    """Run the body as root of a fresh machine that knows the operator's key, which lies in /run."""
    return in_namespace(lambda: body(new_machine()), timeout_s=timeout_s)


def machine_in(namespace: Namespace) -> None:
    """Make the namespace such a machine."""
    namespace.run(_new_machine)


def _new_machine() -> None:
    new_machine()


def new_machine() -> Host:
    users = Path("/etc/passwd").read_text()  # ssh-keygen wants to know who it runs for
    sh("mount -t tmpfs none /var/lib; mkdir -p /run/etc/warren; mount --bind /run/etc /etc")
    Path("/etc/passwd").write_text(users)
    Path("/etc/hosts").write_text("::1 localhost\n")
    sh(f"ssh-keygen -q -t ed25519 -N '' -f {KEY}")
    ALLOWED_SIGNERS.write_text(f"operator {KEY.with_suffix('.pub').read_text()}")
    ALLOWED_SIGNERS.chmod(0o644)
    return Host()


def sign(content: bytes, key: Path = KEY, namespace: str = "warren") -> bytes:
    words = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", namespace]
    return subprocess.run(words, input=content, capture_output=True, check=True).stdout


def request(*documents: Document, confirm_within_s: float = 60.0, dry_run: bool = False) -> Request:
    contents = {each.instance: encode(each) for each in documents}
    signed = {name: Signed(content, sign(content)) for name, content in contents.items()}
    return Request(signed, confirm_within_s, dry_run)


def send(host: Host, *documents: Document, me: MachineName = SERVER1, within_s: float = 60.0) -> Answer:
    """What `machine receive` does, in this process."""
    return receive.receive(host, me, request(*documents, confirm_within_s=within_s))


def errors(answer: Answer) -> dict[InstanceName, str]:
    return {name: str(verdict.error) for name, verdict in answer.verdicts.items() if verdict.error is not None}


def local_mesh(controllers: str = "server1 server2", peers: str = "laptop1", instance: str = "vpn") -> Instance:
    """`mesh` with addresses for endpoints: nobody asks a name server."""
    named = mesh(controllers, peers, instance)
    addresses = {name: Endpoint(f"192.0.2.{number}", 51820) for number, name in enumerate(named.controllers, 1)}
    return replace(
        named, controllers={name: replace(each, endpoint=addresses[name]) for name, each in named.controllers.items()}
    )


def document(host: Host, whole: Inventory | Instance, serial: int, *, me: MachineName = SERVER1) -> Document:
    """The document of the first instance; `me` has this machine's own key, others' follow from their names."""
    whole = whole if isinstance(whole, Inventory) else inventory(whole)
    (name, *_) = whole.instances
    texts = {each: public_key(each).text for each in whole.instances[name].members}
    if me in texts:
        texts[me] = keys.ensure_key(name, host.state).text
    return resolve(whole, {name: Stored(public_keys=texts)}, serial)[name]


def warren(*words: str, stdin: bytes = b"", **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The machine's side as a program of its own."""
    source = Path(state.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "warren.agent.main", *words]
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False, **more)


def as_json(given: Request) -> bytes:
    documents: Mapping[str, Mapping[str, str]] = {
        name: {"document": each.content.decode(), "signature": each.signature.decode()}
        for name, each in given.documents.items()
    }
    tree = {"documents": documents, "confirm_within_s": given.confirm_within_s, "dry_run": given.dry_run}
    return json.dumps(tree).encode()
