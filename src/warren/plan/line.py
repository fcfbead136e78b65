"""The line that an operator hands over: all that a machine needs to reach a controller, and whom to believe there.

    warren-join:1:BASE64URL        of four bytes of SHA-256 over the rest, and the rest: compact JSON

It has the one-time private key, so it is a secret for as long as it is open, and is hidden in `repr`.
"""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Network
from typing import Any

from warren.errors import UsageError
from warren.names import InstanceName, MachineName, is_host_name
from warren.network import addresses
from warren.wireguard.endpoint import Endpoint, parse_endpoint
from warren.wireguard.keys import PrivateKey, PublicKey

START = "warren-join:1:"
LONGEST = 16_384
MOST_CONTROLLERS = 64

_CHECK_BYTES = 4
_MEND = "copy the whole line, or have a new one made: warren machines invite NAME"


@dataclass(frozen=True, slots=True)
class Way:
    """One controller, as far as one who is outside has to know it."""

    public_key: PublicKey
    endpoint: Endpoint
    subnet: IPv6Network


@dataclass(frozen=True, slots=True)
class Line:
    """`signers`: lines of OpenSSH's allowed signers, the operators whose documents are to be followed."""

    instance: InstanceName
    machine: MachineName
    private_key: PrivateKey
    ways: tuple[Way, ...]
    signers: tuple[str, ...]
    expires_unix_s: int


def encode(line: Line) -> str:
    tree = {
        "i": line.instance,
        "m": line.machine,
        "k": line.private_key.reveal_text(),
        "c": [[each.public_key.text, str(each.endpoint), addresses.prefix_text(each.subnet)] for each in line.ways],
        "s": list(line.signers),
        "e": line.expires_unix_s,
    }
    content = json.dumps(tree, separators=(",", ":")).encode("ascii")
    return START + urlsafe_b64encode(_check(content) + content).decode("ascii").rstrip("=")


def decode(text: str) -> Line:
    """UsageError where it is none, or not whole."""
    text = "".join(text.split())  # as terminals and mails break it
    if not text.startswith(START) or len(text) > LONGEST:
        raise UsageError(f"this is no invitation: it begins with {START}", mend=_MEND)
    body = text.removeprefix(START)
    try:
        packed = urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except (binascii.Error, ValueError):
        raise UsageError("the invitation is not whole", mend=_MEND) from None
    content = packed[_CHECK_BYTES:]
    if _check(content) != packed[:_CHECK_BYTES]:
        raise UsageError("the invitation is not whole, or was changed", mend=_MEND)
    try:
        return _line(json.loads(content))
    except (ValueError, LookupError, TypeError):
        raise UsageError("the invitation is of another Warren than this one", mend=_MEND) from None


def _line(tree: Any) -> Line:
    ways = tuple(
        Way(PublicKey.parse(key), parse_endpoint(endpoint), addresses.parse_prefix(prefix))
        for key, endpoint, prefix in tree["c"]
    )
    signers = tuple(tree["s"])
    if not ways or len(ways) > MOST_CONTROLLERS or not signers or not all(map(_is_signer, signers)):
        raise ValueError("nobody to speak to, or to believe")
    return Line(
        _name(tree["i"]), MachineName(_name(tree["m"])), PrivateKey.parse(tree["k"]), ways, signers, int(tree["e"])
    )


def _name(text: Any) -> InstanceName:
    if not isinstance(text, str) or not is_host_name(text):
        raise ValueError("no name")
    return InstanceName(text)


def _is_signer(text: Any) -> bool:
    return isinstance(text, str) and text.isprintable() and len(text.split()) >= 3


def _check(content: bytes) -> bytes:
    return sha256(content).digest()[:_CHECK_BYTES]
