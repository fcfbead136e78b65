"""Give a machine Warren, over one connection, or take it away again."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from warren.errors import MachineError
from warren.fleet import ssh
from warren.fleet.bundle import bundle
from warren.fleet.ssh import Finished, Target

_INSTALL_S = 120.0
_PACKAGES_S = 900.0  # a distribution's mirror may be far away
_UNINSTALL_S = 120.0
_ALL_IS_WELL, _SAID_WHY = 0, 4

# What bootstrap.sh and bootstrap.py find -> what is wrong, how to mend it.
_PROBLEMS = {
    "python": (
        "Warren needs Python 3.11 or later, and the machine has {found}",
        "have its distribution's package installed: warren machines install {machine} --install-packages",
    ),
    "programs": (
        "the machine lacks {found}",
        "have its distribution's packages installed: warren machines install {machine} --install-packages",
    ),
    "packages": ("the packages cannot be installed: {found}{said}", "install them there by hand"),
    "no-package-manager": ("no apt-get and no dnf there to install {found} with", "install them there by hand"),
    "tun": (
        "its kernel has no WireGuard, and a userspace one needs /dev/net/tun, which is not there",
        "load the kernel module wireguard or tun there; in a container, let it have the device /dev/net/tun",
    ),
    "other-machine": (
        'this computer is machine "{found}" already',
        "see whether deploy.host of both is one computer; to give it up: warren machines uninstall {found}",
    ),
    "files": ("nothing was installed: {found}", "make room there, or make the folder writable"),
    "service": ("Warren is installed, but systemd does not run it: {found}", "look there: journalctl -u warren"),
}


@dataclass(frozen=True, slots=True)
class Installed:
    """What a machine has now. `wireguard`: "kernel" or "userspace"; `service`: systemd runs the agent."""

    python: str
    wireguard: str
    service: bool


async def install(target: Target, allowed_signers: str, *, with_packages: bool) -> Installed:
    """Check what Warren needs there, and bring it: all of it or nothing. What is there already is replaced."""
    request = {
        "machine": target.machine,
        "bundle": base64.b64encode(bundle()).decode("ascii"),
        "ask": _text("ask.py"),
        "allowed_signers": allowed_signers,
        "unit": _text("warren.service"),
    }
    words = ["sh", "-c", _text("bootstrap.sh"), "warren", _text("bootstrap.py"), "yes" if with_packages else "no"]
    timeout_s = _PACKAGES_S if with_packages else _INSTALL_S
    finished = await ssh.run(target, words, json.dumps(request).encode(), timeout_s=timeout_s)
    answer = _answer(target, finished)
    if "problem" in answer:
        raise _problem(target, answer, finished)
    return Installed(answer["python"], answer["wireguard"], answer["service"])


async def uninstall(target: Target) -> tuple[str, ...]:
    """Undo it: instances down, files gone, private keys too. Returns the instances that were taken down."""
    finished = await ssh.run(target, ["sh", "-c", _text("uninstall.sh"), "warren"], timeout_s=_UNINSTALL_S)
    if finished.code != _ALL_IS_WELL:
        raise MachineError(f"it is still installed there: {_last_words(finished)}", where=target.machine)
    lines = finished.out.decode(errors="replace").splitlines()
    return tuple(lines[-1].split()) if lines else ()


def _answer(target: Target, finished: Finished) -> dict[str, Any]:
    lines = finished.out.decode(errors="replace").splitlines()
    if finished.code in (_ALL_IS_WELL, _SAID_WHY) and lines:
        answer = json.loads(lines[-1])  # before it: what a shell's start-up files say
        assert isinstance(answer, dict)
        return answer
    raise MachineError(f"nothing was installed: {_last_words(finished)}", where=target.machine)


def _problem(target: Target, answer: dict[str, str], finished: Finished) -> MachineError:
    what, mend = _PROBLEMS[answer["problem"]]
    said = f"\n{finished.err.strip()}" if finished.err.strip() else ""
    found = answer["found"] or "none"
    return MachineError(
        what.format(found=found, said=said),
        where=target.machine,
        mend=mend.format(found=found, machine=target.machine),
    )


def _last_words(finished: Finished) -> str:
    lines = (finished.err.strip() or finished.out.decode(errors="replace").strip()).splitlines()
    if not lines:
        return f"ended with {finished.code} and without a word"
    return "\n".join(lines[-2:]) if lines[-1].startswith("mend: ") else lines[-1]


def _text(name: str) -> str:
    return files("warren.fleet").joinpath(name).read_text()
