"""What this machine is and has, as one tree for the operator's side. Needs no root; says then what it could not see.

{"machine": name or null, "hostname", "warren": version, "python", "kernel", "architecture", "root": bool,
 "system": {"id", "version", "name"},                                             from os-release(5)
 "has": {"kernel_wireguard": bool, "userspace_wireguard": path or null, "tun": bool, "nftables": path or null,
         "ssh_keygen": path or null, "systemd": bool},
 "signers": ["SHA256:…"] or null,                                     the operators' keys; null: never installed
 "instances": {I: {"serial", "sha256" of the document, "signed": bool, "public_key" or null,
                   "next_key" or null: made, to be switched to}
                  or {"error": text}},
 "trial": {"instances": [I], "remaining_s"} or null,                  an update that waits to be confirmed
 "restored": {"unix_s", "why", "instances": [I], "problems": [text]} or null,  the machine went back, last time
 "problem": text or null}                                             why instances could not be listed
"""

from __future__ import annotations

import binascii
import os
import platform
import socket
from base64 import b64decode, b64encode
from hashlib import sha256

import warren
from warren.errors import WarrenError
from warren.host import requirements, signature, state, trial
from warren.host.machine import Host
from warren.names import InstanceName


def facts(host: Host) -> dict[str, object]:
    """The tree."""
    return {
        "hostname": socket.gethostname(),
        "warren": warren.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "root": os.geteuid() == 0,
        "system": _system(),
        "has": _has(),
        "signers": _signers(),
        **_state(host),
    }


def waiting_tree(host: Host) -> dict[str, object]:
    """`trial` and `restored`."""
    waiting, restored = trial.read(host.state), trial.read_restored(host.state)
    return {
        "trial": waiting and {"instances": sorted(waiting.instances), "remaining_s": round(waiting.remaining_s, 1)},
        "restored": restored
        and {
            "unix_s": restored.unix_s,
            "why": restored.why,
            "instances": list(restored.instances),
            "problems": list(restored.problems),
        },
    }


def _state(host: Host) -> dict[str, object]:
    try:
        return {
            "machine": host.machine_name(),
            "instances": {name: _instance(host, name) for name in host.instances()},
            **waiting_tree(host),
            "problem": None,
        }
    except WarrenError as error:
        return {"machine": None, "instances": {}, "trial": None, "restored": None, "problem": str(error)}


def _instance(host: Host, name: InstanceName) -> dict[str, object]:
    try:
        document = host.read_document(name)
        content = state.read_document_content(name, host.state)
        own = host.public_keys(name)
    except WarrenError as error:
        return {"error": str(error)}
    return {
        "serial": document.serial if document else None,
        "sha256": sha256(content or b"").hexdigest(),
        "signed": state.has_signature(name, host.state),
        "public_key": own[0].text if own else None,
        "next_key": own[1].text if len(own) > 1 else None,
    }


def _system() -> dict[str, str]:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        found = {}
    return {
        key: found.get(name, "") for key, name in (("id", "ID"), ("version", "VERSION_ID"), ("name", "PRETTY_NAME"))
    }


def _has() -> dict[str, object]:
    found = requirements.look()
    return {
        "kernel_wireguard": found.has_kernel_wireguard,
        "userspace_wireguard": found.userspace_wireguard,
        "tun": found.has_tun,
        "nftables": found.nft,
        "ssh_keygen": found.ssh_keygen,
        "systemd": found.has_systemd,
    }


def _signers() -> list[str] | None:
    """Fingerprints as ssh-keygen -l shows them."""
    try:
        lines = signature.ALLOWED_SIGNERS.read_text(errors="replace").splitlines()
    except OSError:
        return None
    fingerprints = []
    for word in (word for line in lines if not line.startswith("#") for word in line.split()):
        try:
            blob = b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            continue
        if blob[:4] == b"\0\0\0" + blob[3:4] and len(blob) > 32:  # a key begins with the length of its type's name
            fingerprints.append("SHA256:" + b64encode(sha256(blob).digest()).decode().rstrip("="))
    return fingerprints
