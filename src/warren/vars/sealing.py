"""age, through pyrage: what is sealed to recipients, and opened by an identity. It is imported when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from warren.errors import UsageError, VarsError
from warren.vars import sops

IDENTITY_VARIABLE = "WARREN_IDENTITY"

_USUAL = (".config/warren/identity", ".config/sops/age/keys.txt", ".ssh/id_ed25519", ".ssh/id_rsa")
_ARMOR, _BINARY = b"-----BEGIN AGE ENCRYPTED FILE-----", b"age-encryption.org/v1"
_AGE_SECRET = "AGE-SECRET-KEY-"  # noqa: S105 - how they begin
_NAME_ONE = f"name another one: --identity FILE, or {IDENTITY_VARIABLE}"
_UNLOCKED = "age's own can have one: age-keygen | age -p > ~/.config/warren/identity; its public half: meta.recipients"


class Opens(Protocol):
    """Whoever can open what is sealed."""

    def open(self, text: str) -> bytes:
        """What is in it; VarsError where that cannot be had."""
        ...


def seal(content: bytes, recipients: Sequence[str]) -> str:
    """The content, encrypted to all of them, as text."""
    import pyrage

    if not recipients:
        raise UsageError("there is nobody who could open it", mend='meta.recipients = ["age1…"] in the inventory')
    return bytes(pyrage.encrypt(content, [_recipient(text) for text in recipients], armored=True)).decode("ascii")


def _recipient(text: str) -> Any:
    import pyrage

    kind = pyrage.x25519 if text.startswith("age1") else pyrage.ssh
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise UsageError(f"{text[:24]}… cannot be encrypted to: {error}", mend="mend it in meta.recipients") from None


class Identities:
    """The operator's identities, read when the first secret is opened. `ask`: for a passphrase; None: nobody to ask."""

    def __init__(self, given: str | None = None, ask: Callable[[str], str] | None = None) -> None:
        self._ask = ask
        self._given = given or os.environ.get(IDENTITY_VARIABLE)
        self._why_not: list[str] = []
        self._loaded: list[Any] | None = None

    def open(self, text: str) -> bytes:
        import pyrage

        if sops.is_sops(text):
            return sops.opened(text, self._given or self._own_of_warren())
        identities = self._identities()
        try:
            if identities:
                return bytes(pyrage.decrypt(text.encode(), identities))
        except pyrage.DecryptError as error:
            what = "none of your identities opens it" if "No matching keys" in str(error) else f"damaged: {error}"
            raise VarsError("; ".join([what, *self._why_not]), mend=self._mend(damaged="damaged" in what)) from None
        raise VarsError("; ".join(["there is no identity to open it with", *self._why_not]), mend=_NAME_ONE)

    def are_at_hand(self) -> bool:
        """Whether there is any; UsageError where one was named that cannot be used."""
        return bool(self._identities())

    @property
    def why_not(self) -> str:
        """What stands in the way of those that were found."""
        return "; ".join(self._why_not)

    def _mend(self, *, damaged: bool) -> str:
        if damaged:
            return "take it from git, as it was before: git log -- PATH"
        return f"{_NAME_ONE}; or have somebody who can open it run: warren vars reseal"

    def _identities(self) -> list[Any]:
        if self._loaded is None:
            self._loaded = list(self._named(self._given) if self._given else self._usual())
        return self._loaded

    def _own_of_warren(self) -> str | None:
        """The one that no other program looks for."""
        path = Path.home() / _USUAL[0]
        return str(path) if path.exists() else None

    def _named(self, given: str) -> Iterator[Any]:
        path = Path(given).expanduser()
        try:
            yield from self._read(path)
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=given, mend=_NAME_ONE) from None
        except _Unusable as unusable:
            raise UsageError(str(unusable), where=given, mend=unusable.mend) from None

    def _usual(self) -> Iterator[Any]:
        for name in _USUAL:
            path = Path.home() / name
            try:
                yield from self._read(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._why_not.append(f"~/{name} cannot be read: {error.strerror}")
            except _Unusable as unusable:
                self._why_not.append(f"~/{name}: {unusable}")

    def _read(self, path: Path) -> list[Any]:
        content = path.read_bytes()
        if content.startswith((_ARMOR, _BINARY)):
            content = self._unlocked(path, content)
        return _identities_in(content)

    def _unlocked(self, path: Path, content: bytes) -> bytes:
        import pyrage

        if self._ask is None:
            raise _Unusable("it has a passphrase, and nobody is there to ask", "run this in a terminal")
        try:
            return bytes(pyrage.passphrase.decrypt(content, self._ask(str(path))))
        except pyrage.DecryptError:
            raise _Unusable("this is not its passphrase", "try again") from None


class _Unusable(Exception):
    """Why an identity file cannot be used."""

    def __init__(self, what: str, mend: str = _NAME_ONE) -> None:
        super().__init__(what)
        self.mend = mend


def _identities_in(content: bytes) -> list[Any]:
    """Those in a file of age's, or the one of ssh's. No error has any of it in its text."""
    import pyrage

    text = content.decode("ascii", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        if any(line.startswith(_AGE_SECRET) for line in lines):
            return [pyrage.x25519.Identity.from_str(line) for line in lines]
        return [pyrage.ssh.Identity.from_buffer(content)]
    except pyrage.IdentityError as error:
        if "decrypted first" in str(error):
            raise _Unusable("ssh keys with a passphrase cannot be used here", _UNLOCKED) from None
        if "nsupported" in str(error):
            raise _Unusable("of ssh keys, ssh-ed25519 and ssh-rsa alone can be used") from None
        raise _Unusable("this is neither an identity of age's nor a private key of ssh's") from None
