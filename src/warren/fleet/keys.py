"""Keys that machines make for themselves, asked of all of them at once; only public ones come back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from warren.errors import MachineError
from warren.fleet import machine_side
from warren.fleet.ssh import Target
from warren.names import InstanceName, MachineName
from warren.vars.generate import KeyRequest
from warren.wireguard.keys import PublicKey

Answer: TypeAlias = dict[InstanceName, PublicKey] | MachineError


@dataclass(frozen=True, slots=True)
class Asked:
    """The way to machines that were asked already (vars.reach.Reach)."""

    answers: Mapping[MachineName, Answer]

    def reaches(self, machine: MachineName) -> bool:
        return machine in self.answers

    def stage_key(self, machine: MachineName, instance: InstanceName) -> PublicKey:
        return self.make_key(machine, instance, False)

    def make_key(self, machine: MachineName, instance: InstanceName, replace: bool) -> PublicKey:
        answer = self.answers[machine]
        if isinstance(answer, MachineError):
            raise answer
        return answer[instance]


async def ask_for_keys(requests: Iterable[KeyRequest], targets: Mapping[MachineName, Target], parallel: int) -> Asked:
    """Have the machines make what is asked of them; those without a target are not asked."""
    wanted: dict[MachineName, list[KeyRequest]] = {}
    for request in requests:
        if request.variable.machine in targets:
            wanted.setdefault(request.variable.machine, []).append(request)
    free = asyncio.Semaphore(parallel)
    answers = await asyncio.gather(*(_ask(free, targets[name], each) for name, each in wanted.items()))
    return Asked(dict(zip(wanted, answers, strict=True)))


async def _ask(free: asyncio.Semaphore, target: Target, requests: list[KeyRequest]) -> Answer:
    staged = [request.instance for request in requests if request.stage]
    others = [request.instance for request in requests if not request.stage]
    made: dict[InstanceName, PublicKey] = {}
    try:
        async with free:
            if others:
                replace = any(request.replace for request in requests)
                made |= await machine_side.keygen(target, others, replace=replace)
            if staged:
                made |= await machine_side.keygen(target, staged, stage=True)
    except MachineError as error:
        return error
    if missing := {*staged, *others} - made.keys():
        return MachineError(f"it made no key for {', '.join(sorted(missing))}", where=target.machine)
    return made
