"""Private keys out of the vault, brought to the machines whose keys they are: opened here, in memory alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TypeAlias

from warren.errors import MachineError, UsageError, VarsError
from warren.fleet import machine_side
from warren.fleet.machine_side import Kept, KeysToKeep
from warren.fleet.ssh import Target
from warren.names import InstanceName, MachineName
from warren.network.stored import NEXT_KEY_FILE
from warren.vars.generators import key_variable
from warren.vars.sealing import Identities
from warren.wireguard.keys import PublicKey
from warren.wireguard.x25519 import public_key
from warren.workspace.folder import Folder

Opened: TypeAlias = dict[InstanceName, KeysToKeep]


def opened(folder: Folder, machine: MachineName, identities: Identities) -> Opened:
    """What the machine is to have, of all its instances; VarsError where something cannot be opened."""
    found: Opened = {}
    for name, instance in folder.inventory.instances.items():
        member = instance.members.get(machine)
        if member is None or not member.has_vault_key:
            continue
        first = key_variable(machine, name)
        keys = [
            folder.vault.private_key(each, folder.texts[each], identities)
            if each in folder.texts and folder.vault.has(each, folder.texts[each])
            else None
            for each in (first, first._replace(file=NEXT_KEY_FILE))
        ]
        if any(keys):
            found[name] = KeysToKeep(*keys)
    return found


class Delivery:
    """One run's: each machine once. `say` hears why keys stay where they are."""

    def __init__(self, identities: Identities, say: Callable[[str], None]) -> None:
        self.brought: dict[MachineName, Kept] = {}
        self._identities = identities
        self._say = say
        self._waiting: dict[MachineName, Opened] = {}
        self._tried: set[MachineName] = set()

    def prepare(self, folder: Folder, machines: Collection[MachineName]) -> None:
        """Open what these machines are to be brought. A machine may have its key already, so this stops nothing."""
        for machine in folder.inventory.vault_machines:
            if machine not in machines or machine in self._tried:
                continue
            self._tried.add(machine)
            try:
                if keys := opened(folder, machine, self._identities):
                    self._waiting[machine] = keys
            except (VarsError, UsageError) as error:
                self._say(f"{machine}: its key stays in the vault: {error}")

    async def bring_ahead(self, targets: Collection[Target], parallel: int) -> None:
        """Bring these machines their keys now. What goes wrong is said when they are visited."""
        free = asyncio.Semaphore(parallel)

        async def one(target: Target) -> None:
            async with free:
                with suppress(MachineError):
                    await self.bring(target)

        await asyncio.gather(*map(one, targets))

    async def bring(self, target: Target) -> None:
        """Bring the machine its keys, if any wait for it; MachineError where it does not take them."""
        keys = self._waiting.get(target.machine)
        if keys is not None:
            self.brought[target.machine] = await bring(target, keys)
            del self._waiting[target.machine]


async def bring(target: Target, keys: Opened) -> Kept:
    kept = await machine_side.keep(target, keys)
    missing = [name for name, each in keys.items() if not _expected(each) & kept.keys.get(name, set())]
    if missing:
        raise MachineError(f"it did not keep its key of {', '.join(missing)}", where=target.machine)
    return kept


def _expected(keys: KeysToKeep) -> set[PublicKey]:
    """One that it must have by now: of the two, the one that counts."""
    key = keys.key or keys.following
    return {public_key(key)} if key else set()


async def bring_all(
    targets: Mapping[MachineName, Target], keys: Mapping[MachineName, Opened], parallel: int
) -> dict[MachineName, Kept | MachineError]:
    """What became of each machine that there are keys for."""
    free = asyncio.Semaphore(parallel)

    async def one(machine: MachineName) -> Kept | MachineError:
        try:
            async with free:
                return await bring(targets[machine], keys[machine])
        except MachineError as error:
            return error

    return dict(zip(keys, await asyncio.gather(*map(one, keys)), strict=True))
