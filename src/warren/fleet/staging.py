"""Next keys, made on machines that follow a published document, over ssh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from warren.fleet.host_keys import ask_host_keys
from warren.fleet.keys import Asked, ask_for_keys
from warren.fleet.record import Record
from warren.fleet.rollout import PARALLEL
from warren.fleet.ssh import Unreachable, target_of
from warren.names import InstanceName, MachineName
from warren.vars.check import is_revoked
from warren.vars.generate import Work
from warren.vars.reach import Reach
from warren.workspace.folder import Folder


def follows_of(folder: Folder) -> frozenset[tuple[MachineName, InstanceName]]:
    """Which machines confirmed a document of which instance: others know their keys."""
    return frozenset(Record(folder.store).acknowledged())


def learn_host_keys(folder: Folder, work: Work, reaches: Sequence[Reach], say: Callable[[str], None]) -> None:
    """Have machines whose keys are to be made here tell their ssh host keys, if they did not yet."""
    unknown = {request.variable.machine for request in work.vault} - folder.vault.host_keys.keys()
    targets = {
        name: target_of(machine)
        for name, machine in folder.inventory.machines.items()
        if name in unknown and machine.managed and not any(each.reaches(name) for each in reaches)
    }
    if not targets:
        return
    told, problems = asyncio.run(ask_host_keys(targets, PARALLEL))
    for name, problem in sorted(problems.items()):
        say(f"{name}: its key is encrypted to the operators alone, and not to its ssh host key: {problem}")
    folder.vault.learn(told)


def over_ssh(folder: Folder, work: Work, reaches: Sequence[Reach]) -> Asked:
    """The answers of machines that follow a document, or did until they were revoked, and to which there is no other
    way."""
    follows = {machine for machine, _ in follows_of(folder)}
    requests = [
        request
        for request in work.keys
        if (request.variable.machine in follows or is_revoked(folder.texts, request.variable))
        and not any(each.reaches(request.variable.machine) for each in reaches)
    ]
    targets = {each.variable.machine: target_of(folder.inventory.machines[each.variable.machine]) for each in requests}
    asked = asyncio.run(ask_for_keys(requests, targets, PARALLEL))
    answers = dict(asked.answers)
    for name, answer in asked.answers.items():
        if isinstance(answer, Unreachable) and folder.inventory.machines[name].deploy.pull:
            meshes = [each.name for each in folder.inventory.instances.values() if name in each.members]
            answers[name] = _not_reached(name, meshes)
    return Asked(answers)


def _not_reached(machine: MachineName, instances: Sequence[InstanceName]) -> Unreachable:
    """Of one that fetches its documents: controllers bring it no questions, and the operator no answers."""
    return Unreachable(
        "no new key: new ones are asked for over ssh alone, and ssh does not reach it (deploy.pull)",
        mend=f"to have it join anew, and be cut off meanwhile: warren machines revoke {machine}; warren machines "
        f"update; warren machines invite {machine} --wait; and on it: sudo warren machine forget "
        f"{' '.join(instances)}; sudo warren join",
    )
