"""What machines ask of controllers inside the tunnel, and what these answer: TCP port 51819 of a controller's `::1`.

    asked       warren 1 newer SERIAL          have you a document that is newer than that?
                warren 1 join NAME KEY         by one who was invited: this is the public key that I made
    answered    document BYTES BYTES           of the document and of its signature, which follow
                nothing
                waits                          the key is here, and the operator decides
                refused WORDS

One line of ASCII each way, and the end. Who asks is known from the source address, which WireGuard vouches for.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeAlias

from warren.names import MachineName, is_host_name
from warren.network import addresses
from warren.network.document import Document
from warren.plan import signals
from warren.wireguard.keys import PublicKey

PORT = signals.PORT
LONGEST_LINE_BYTES = 200
LONGEST_REASON = 150
LARGEST_DOCUMENT_BYTES = 64 * 1024 * 1024  # 10,000 machines are 1.5 MB
LARGEST_SIGNATURE_BYTES = 16 * 1024

_GREETING = "warren 1"
_MACHINE_BITS = 96


@dataclass(frozen=True, slots=True)
class Newer:
    """A document newer than this serial is asked for."""

    serial: int


@dataclass(frozen=True, slots=True)
class Join:
    """A machine that was invited hands in the public key that it made."""

    machine: MachineName
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class Handed:
    """A document comes: so many bytes, and then so many of its signature."""

    document_bytes: int
    signature_bytes: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is none."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The key is handed in, and the operator decides."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the answer is no."""

    reason: str


Answer: TypeAlias = Handed | Nothing | Waits | Refused


def is_of_a_machine(source: IPv6Address, document: Document) -> bool:
    """Whether it is an address that machines of the mesh have; WireGuard lets each use its own alone."""
    return source in document.base and not source.packed[addresses.SUBNET_BITS // 8]


def is_same_machine(one: IPv6Address, other: IPv6Address) -> bool:
    """Whether both are in one machine's range."""
    return int(one) >> 128 - _MACHINE_BITS == int(other) >> 128 - _MACHINE_BITS


def ask_newer(serial: int) -> bytes:
    return f"{_GREETING} newer {serial}\n".encode("ascii")


def ask_join(machine: MachineName, public_key: PublicKey) -> bytes:
    return f"{_GREETING} join {machine} {public_key.text}\n".encode("ascii")


def read_question(line: bytes) -> Newer | Join:
    """ValueError says what is wrong with it."""
    match _words(line):
        case ["warren", "1", "newer", serial]:
            return Newer(_number(serial, signals.LARGEST_SERIAL))
        case ["warren", "1", "join", name, key]:
            if not is_host_name(name):
                raise ValueError("that is no machine's name")
            return Join(MachineName(name), PublicKey.parse(key))
        case ["warren", "1", *_]:
            raise ValueError("this is not asked here")
    raise ValueError("no question of Warren's, or of another version")


def hand(document: bytes, signature: bytes) -> bytes:
    return f"document {len(document)} {len(signature)}\n".encode("ascii") + document + signature


NOTHING = b"nothing\n"
WAITS = b"waits\n"


def refuse(reason: str) -> bytes:
    return f"refused {printable(reason)}\n".encode("ascii")


def read_answer(line: bytes) -> Answer:
    """Of its first line; ValueError where it is none."""
    match _words(line):
        case ["document", document, signature]:
            return Handed(
                _number(document, LARGEST_DOCUMENT_BYTES, least=1), _number(signature, LARGEST_SIGNATURE_BYTES, least=1)
            )
        case ["nothing"]:
            return Nothing()
        case ["waits"]:
            return Waits()
        case ["refused", *words]:
            return Refused(" ".join(words))
    raise ValueError("no answer of Warren's")


def printable(text: str) -> str:
    """What of it may be shown on a terminal, and stand in one line."""
    return "".join(each if _is_printable(each) else "?" for each in text[:LONGEST_REASON])


def _is_printable(character: str) -> bool:
    return " " <= character <= "~"


def _words(line: bytes) -> list[str]:
    if len(line) > LONGEST_LINE_BYTES:
        raise ValueError(f"longer than {LONGEST_LINE_BYTES} bytes")
    text = line.decode("ascii", errors="replace")
    if not all(map(_is_printable, text)):
        raise ValueError("not ASCII")
    return text.split(" ")


def _number(text: str, most: int, least: int = 0) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise ValueError("not a number, or too large")
    return int(text)
