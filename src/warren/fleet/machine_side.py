"""What the operator's side asks of a machine that has Warren: `warren machine …` there, JSON in and JSON out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from warren.errors import MachineError
from warren.fleet import ssh
from warren.fleet.ssh import Finished, Target
from warren.host import guestbook
from warren.names import InstanceName, MachineName
from warren.plan.joining import Guestbook
from warren.wireguard.keys import PrivateKey, PublicKey
from warren.wireguard.preshared import Fingerprint, parse_fingerprint

PROGRAM = "/usr/local/bin/warren"
CONFIRM_WITHIN_S = 60

_KEYGEN_S = 60.0
_RECEIVE_S = 180.0  # a machine of many instances waits for handshakes and for its lock
_CONFIRM_S = 20.0
_FORGET_S = 60.0
_STATUS_S = 30.0
_DRAIN_S = 60.0
_PRESHARED_S = 120.0


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A network document's canonical bytes as text, and the signature over them."""

    document: str
    signature: str


@dataclass(frozen=True, slots=True)
class InstanceVerdict:
    """What became of one instance: the commands that were done (of a dry run: that wait), or why not.

    `notes`: what the operator has to do on the machine by hand. `interrupts`: sessions of a controller are cut by it.
    """

    steps: tuple[str, ...] = ()
    error: str = ""
    notes: tuple[str, ...] = ()
    interrupts: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A machine's own word on what it received. `token`: to be confirmed, or it goes back; "": nothing changed."""

    instances: Mapping[InstanceName, InstanceVerdict] = field(default_factory=dict)
    token: str = ""


@dataclass(frozen=True, slots=True)
class KeysToKeep:
    """What a machine is brought of one instance: the key that counts, and the one that comes after it."""

    key: PrivateKey | None
    following: PrivateKey | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The keys that a machine has, by instance; and the instances of which it had none before."""

    keys: Mapping[InstanceName, set[PublicKey]]
    was_empty: frozenset[InstanceName]


async def keygen(
    target: Target, instances: Iterable[InstanceName], *, replace: bool = False, stage: bool = False
) -> dict[InstanceName, PublicKey]:
    """Have the machine make its keys; the public ones. `stage`: its next keys, which it does not use yet."""
    how = ["--replace"] if replace else ["--stage"] if stage else []
    words = ["keygen", *instances, "--machine", target.machine, *how]
    answer = await _ask(target, words, timeout_s=_KEYGEN_S)
    try:
        return {InstanceName(name): PublicKey.parse(text) for name, text in answer["public_keys"].items()}
    except (KeyError, AttributeError, ValueError) as error:
        raise _strange(target, error) from None


async def held_keys(target: Target, instances: Iterable[InstanceName]) -> dict[InstanceName, list[PublicKey]]:
    """The public halves of the keys that the machine has: the one that counts first, then the next one; or none."""
    words = ["keys", *instances, "--machine", target.machine]
    answer = await _ask(target, words, timeout_s=_KEYGEN_S, is_public=True)
    try:
        return {InstanceName(name): [*map(PublicKey.parse, keys)] for name, keys in answer["public_keys"].items()}
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise _strange(target, error) from None


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A preshared key on its way from one machine to another, which alone can open it."""

    maker: MachineName
    maker_key: PublicKey
    other: MachineName
    number: int
    fingerprint: Fingerprint
    sealed: str = field(repr=False)


async def make_preshared(
    target: Target, instance: InstanceName, own_key: PublicKey, others: Mapping[MachineName, PublicKey]
) -> list[SealedKey]:
    """Have the machine make a preshared key for each of those others; each comes back sealed for its other."""
    request = {"public_key": own_key.text, "others": {name: key.text for name, key in others.items()}}
    words = ["preshared-make", instance, "--machine", target.machine]
    answer = await _ask(target, words, json.dumps(request).encode(), timeout_s=_PRESHARED_S)
    try:
        return [
            SealedKey(
                target.machine, own_key, name, int(each["number"]), parse_fingerprint(each["fingerprint"]),
                str(each["sealed"]),
            )
            for name in others
            for each in (answer["sealed"][name],)
        ]  # fmt: skip
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise _strange(target, error) from None


async def take_preshared(
    target: Target, instance: InstanceName, own_key: PublicKey, brought: Iterable[SealedKey]
) -> tuple[dict[MachineName, Fingerprint], dict[MachineName, str]]:
    """Bring the machine preshared keys that were sealed for it: by maker, what it holds now, and what it refused."""
    sealed = {
        each.maker: {
            "public_key": each.maker_key.text,
            "number": each.number,
            "fingerprint": each.fingerprint,
            "sealed": each.sealed,
        }
        for each in brought
    }
    request = {"public_key": own_key.text, "sealed": sealed}
    words = ["preshared-take", instance, "--machine", target.machine]
    answer = await _ask(target, words, json.dumps(request).encode(), timeout_s=_PRESHARED_S)
    try:
        taken = {MachineName(name): parse_fingerprint(each) for name, each in answer["held"].items()}
        return taken, {MachineName(name): str(text) for name, text in answer["refused"].items()}
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise _strange(target, error) from None


async def keep(target: Target, brought: Mapping[InstanceName, KeysToKeep]) -> Kept:
    """Bring the machine private keys, on stdin and over a connection of the full key exchange."""
    tree = {name: {"key": _revealed(each.key), "next": _revealed(each.following)} for name, each in brought.items()}
    words = ["keep", "--machine", target.machine]
    answer = await _ask(target, words, json.dumps({"keys": tree}).encode(), timeout_s=_KEYGEN_S)
    try:
        kept = answer["kept"]
        held = {
            InstanceName(name): {PublicKey.parse(text) for text in each["public_keys"]} for name, each in kept.items()
        }
        return Kept(held, frozenset(InstanceName(name) for name, each in kept.items() if each["was_empty"] is True))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise _strange(target, error) from None


def _revealed(key: PrivateKey | None) -> str | None:
    return key.reveal_text() if key else None


async def receive(target: Target, documents: Mapping[InstanceName, SignedDocument], dry_run: bool) -> Verdict:
    """Bring the machine documents; they hold for good once `confirm` was called with the token."""
    request = {
        "documents": {
            name: {"document": each.document, "signature": each.signature} for name, each in documents.items()
        },
        "confirm_within_s": CONFIRM_WITHIN_S,
        "dry_run": dry_run,
    }
    words = ["receive", "--machine", target.machine]
    answer = await _ask(target, words, json.dumps(request).encode(), timeout_s=_RECEIVE_S, is_public=True)
    try:
        instances = {InstanceName(name): _instance_verdict(each) for name, each in answer["instances"].items()}
        return Verdict(instances, str(answer["token"] or ""))
    except (KeyError, AttributeError, TypeError) as error:
        raise _strange(target, error) from None


def _instance_verdict(tree: Any) -> InstanceVerdict:
    steps, notes = tuple(map(str, tree["steps"])), tuple(map(str, tree.get("notes", ())))
    return InstanceVerdict(steps, str(tree["error"] or ""), notes, tree.get("interrupts") is True)


async def confirm(target: Target, token: str) -> None:
    """Say, over a connection made after the change, that the machine is still reached."""
    await _ask(target, ["confirm", token], timeout_s=_CONFIRM_S, new_connection=True, is_public=True)


async def status(target: Target) -> dict[str, Any]:
    """What the machine says of itself: the tree of `warren status --json` there."""
    answer = await _answer(target, [PROGRAM, "status", "--json"], timeout_s=_STATUS_S)
    if not isinstance(answer, dict):
        raise _strange(target, TypeError(f"{type(answer).__name__} is no status"))
    return answer


async def drain(target: Target, instances: Iterable[InstanceName], draining: bool) -> bool:
    """Ask a controller's peers to leave it, or back; whether all that it hears of followed."""
    words = ["drain" if draining else "undrain", *instances, "--machine", target.machine]
    return bool((await _ask(target, words, timeout_s=_DRAIN_S))["left"])


async def guests(target: Target, instance: InstanceName) -> Guestbook:
    """Who came to this controller by invitations."""
    answer = await _ask(target, ["guests", instance], timeout_s=_STATUS_S)
    try:
        return guestbook.book_of(answer)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _strange(target, error) from None


async def forget(target: Target, instance: InstanceName) -> None:
    """Take an instance off the machine that it is no longer in."""
    await _ask(target, ["forget", instance], timeout_s=_FORGET_S)


async def _ask(target: Target, words: Sequence[str], stdin: bytes = b"", **how: Any) -> Any:
    return await _answer(target, [PROGRAM, "machine", *words], stdin, **how)


async def _answer(
    target: Target,
    command: Sequence[str],
    stdin: bytes = b"",
    *,
    timeout_s: float,
    new_connection: bool = False,
    is_public: bool = False,
) -> Any:
    finished = await ssh.run(
        target, command, stdin, timeout_s=timeout_s, new_connection=new_connection, is_public=is_public
    )
    if ssh.is_missing(finished):
        raise MachineError(
            "Warren is not installed there", where=target.machine, mend=f"warren machines install {target.machine}"
        )
    try:
        return json.loads(finished.out)
    except ValueError:
        raise MachineError(_said(finished), where=target.machine) from None


def _said(finished: Finished) -> str:
    """Of a program that gave no answer: what it said instead."""
    text = finished.err.strip()
    return text or f"it gave no answer and ended with {finished.code}"


def _strange(target: Target, error: Exception) -> MachineError:
    return MachineError(
        f"its answer is not understood here: {error!r}",
        where=target.machine,
        mend=f"bring it the same Warren as here: warren machines install {target.machine}",
    )
