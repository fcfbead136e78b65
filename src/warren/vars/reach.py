"""The way to a machine, as far as its keys are concerned."""

from __future__ import annotations

from typing import Protocol

from warren.names import InstanceName, MachineName
from warren.wireguard.keys import PublicKey


class Reach(Protocol):
    """A way to some machines. Keys are made at its far end; only public ones come back."""

    def reaches(self, machine: MachineName) -> bool:
        """Whether this is a way to the machine."""
        ...

    def make_key(self, machine: MachineName, instance: InstanceName, replace: bool) -> PublicKey:
        """The machine's public key for the instance; made now if it has none, or if `replace` asks for another.

        Raises MachineError when the machine did not do it.
        """
        ...

    def stage_key(self, machine: MachineName, instance: InstanceName) -> PublicKey:
        """The public half of the key that comes after the machine's; made now if none waits there yet."""
        ...
