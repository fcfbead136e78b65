"""The machines' own ssh host keys, public halves: secrets in the vault are encrypted to them, too.

vars/per-machine/<machine>/ssh-host/ed25519.pub/value       as the machine said, or somebody by `warren vars set`
vars/per-machine/<machine>/openssh/ssh.id_ed25519.pub/value as clan repositories have it; read, never written
"""

from __future__ import annotations

from warren.errors import VarsError
from warren.inventory.model import Inventory
from warren.inventory.recipients import canonical_recipient, recipient_problem
from warren.names import MachineName
from warren.vars.generators import Variable
from warren.vars.store import Store

GENERATOR = "ssh-host"
KEY_TYPE = "ssh-ed25519"

_FILE = "ed25519.pub"
_CLANS = ("openssh", "ssh.id_ed25519.pub")


def host_key_variable(machine: MachineName) -> Variable:
    return Variable(machine, GENERATOR, _FILE)


def read_host_keys(store: Store, inventory: Inventory) -> dict[MachineName, str]:
    """Of the machines that have keys in the vault, as far as they are known; VarsError with one that is none."""
    found = {}
    for machine in inventory.vault_machines:
        for variable in (host_key_variable(machine), Variable(machine, *_CLANS)):
            text = store.text(variable)
            if text is not None:
                found[machine] = accepted_host_key(variable, text)
                break
    return found


def accepted_host_key(variable: Variable, text: str) -> str:
    """The key as it will be stored; VarsError where it is none."""
    key = canonical_recipient(text)
    problem = recipient_problem(key)
    if problem is None and key.startswith(f"{KEY_TYPE} "):
        return key
    raise VarsError(
        "this is not the public half of an ed25519 host key",
        where=variable.path,
        mend=f"on the machine: cat /etc/ssh/ssh_host_ed25519_key.pub; here: warren vars set {variable.machine} "
        f"{GENERATOR}/{_FILE} 'what it prints'",
    )
