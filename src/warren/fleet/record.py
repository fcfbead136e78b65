"""What is known of published documents: their serials, and which machine acknowledged what. It is kept in the vars.

vars/shared/wireguard-document-<instance>/serial      grows with each new content
vars/shared/wireguard-document-<instance>/digest      of that content
vars/shared/warren-operators/allowed_signers          whose signatures machines accept
vars/per-machine/<machine>/wireguard-document-<instance>/plan     the part of it that the machine confirmed
vars/per-machine/<machine>/wireguard-document-<instance>/values   its own values in it, a line for each: file, text
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from warren.errors import VarsError
from warren.fleet.plans import Digest, Digests, OwnValues, content_digest
from warren.names import InstanceName, MachineName, is_host_name
from warren.network.document import Document
from warren.vars.generators import SharedVariable, Variable
from warren.vars.store import PER_MACHINE, Store

PLAN_FILE = "plan"
VALUES_FILE = "values"
SERIAL_FILE = "serial"
DIGEST_FILE = "digest"

_SIGNERS = SharedVariable("warren-operators", "allowed_signers")


def document_generator(instance: InstanceName) -> str:
    return f"wireguard-document-{instance}"


_START = document_generator(InstanceName(""))


class Record:
    """The record in one folder, that of the inventory. Whoever reads to write holds the store's lock meanwhile."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def acknowledged(self) -> dict[tuple[MachineName, InstanceName], Digest]:
        """What each machine confirmed last; of machines that left the inventory too."""
        return self._noted(PLAN_FILE)

    def confirmed_values(self) -> dict[tuple[MachineName, InstanceName], OwnValues]:
        """The own values in the document that each machine confirmed last, if they were noted."""
        return {
            pair: dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
            for pair, text in self._noted(VALUES_FILE).items()
        }

    def acknowledge(
        self,
        machine: MachineName,
        plans: Mapping[InstanceName, Digest],
        values: Mapping[InstanceName, OwnValues] | None = None,
    ) -> list[Variable]:
        """Note what a machine confirmed; returns what was written. Values that are not said are not known any more."""
        texts = {plan_variable(machine, instance): digest for instance, digest in plans.items()}
        for instance, own in (values or {}).items():
            variable = plan_variable(machine, instance)._replace(file=VALUES_FILE)
            text = "".join(f"{file} {value}\n" for file, value in sorted(own.items()))
            if text != self._value(variable):  # it seldom is another one
                texts[variable] = text
        unknown = [noted_variables(machine, instance)[1] for instance in plans.keys() - (values or {}).keys()]
        gone = [variable for variable in unknown if self._value(variable)]
        self.store.write(texts)
        self.store.delete(gone)
        return [*texts, *gone]

    def serial(self, document: Document) -> int | None:
        """Of the newest published document; None: this one is not published."""
        known = self._shared(document.instance, DIGEST_FILE) == content_digest(document)
        return self._serial(document.instance) if known else None

    def was_published(self, instance: InstanceName) -> bool:
        return self._serial(instance) > 0

    def with_serial(self, document: Document) -> Document:
        """The document with the serial under which it is, or will be, published."""
        known = self._shared(document.instance, DIGEST_FILE) == content_digest(document)
        return replace(document, serial=self._serial(document.instance) + (0 if known else 1))

    def publish(self, documents: Iterable[Document]) -> list[SharedVariable]:
        """Note serials, before anybody sees a document: a serial never stands for two contents."""
        texts: dict[SharedVariable, str] = {}
        for document in documents:
            if document.serial != self._serial(document.instance):
                generator = document_generator(document.instance)
                texts[SharedVariable(generator, SERIAL_FILE)] = str(document.serial)
                texts[SharedVariable(generator, DIGEST_FILE)] = content_digest(document)
        self.store.write(texts)
        return list(texts)

    def allowed_signers(self) -> str:
        """The file that machines verify signatures with; "" where nobody was pinned yet."""
        return self._value(_SIGNERS)

    def allow(self, signer: str) -> list[SharedVariable]:
        """Add a line to the allowed signers, if its key is not in them; returns what was written."""
        key = signer.partition(" ")[2].split()[1:3]
        lines = self.allowed_signers().splitlines()
        if any(line.partition(" ")[2].split()[1:3] == key for line in lines):
            return []
        self.store.write({_SIGNERS: "\n".join([*lines, signer]) + "\n"})
        return [_SIGNERS]

    def _noted(self, file: str) -> dict[tuple[MachineName, InstanceName], str]:
        found = {}
        for path in (self.store.folder / PER_MACHINE).glob(f"*/{_START}*/{file}/value"):
            machine, generator = path.parts[-4], path.parts[-3]
            instance = generator.removeprefix(_START)
            if is_host_name(machine) and is_host_name(instance):
                found[MachineName(machine), InstanceName(instance)] = _text(path)
        return found

    def _serial(self, instance: InstanceName) -> int:
        text = self._shared(instance, SERIAL_FILE)
        if not text:
            return 0
        if not text.isascii() or not text.isdigit():
            path = SharedVariable(document_generator(instance), SERIAL_FILE).path
            raise VarsError(f"{text!r} is no serial number", where=path, mend="git checkout the file")
        return int(text)

    def _shared(self, instance: InstanceName, file: str) -> str:
        return self._value(SharedVariable(document_generator(instance), file))

    def _value(self, variable: Variable | SharedVariable) -> str:
        return _text(self.store.folder / variable.path)


def plan_variable(machine: MachineName, instance: InstanceName) -> Variable:
    return Variable(machine, document_generator(instance), PLAN_FILE)


def noted_variables(machine: MachineName, instance: InstanceName) -> list[Variable]:
    """Where it is noted what the machine confirmed."""
    return [plan_variable(machine, instance)._replace(file=file) for file in (PLAN_FILE, VALUES_FILE)]


def plans_of(acknowledged: Digests, machine: MachineName) -> list[Variable]:
    """Everything that the machine confirmed, by where it is stored."""
    return [variable for pair in acknowledged if pair[0] == machine for variable in noted_variables(*pair)]


def _text(path: Path) -> str:
    with suppress(FileNotFoundError):
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise VarsError(f"cannot be read: {error}", where=str(path)) from None
    return ""
