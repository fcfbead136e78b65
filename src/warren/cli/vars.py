"""`warren vars`: generated values, stored beside the inventory."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from warren.cli import EXIT_MACHINE_FAILED
from warren.cli.fix import fix
from warren.cli.rotate import rotate
from warren.cli.vars_check import check
from warren.cli.vars_options import commit_option, json_option, machines_option, services_option
from warren.cli.vault import reseal, upload
from warren.errors import LabError, MachineError, UsageError
from warren.fleet.staging import follows_of, learn_host_keys, over_ssh
from warren.inventory.wording import Nearest, quoted
from warren.names import HOST_NAME_RULE, InstanceName, MachineName, is_host_name
from warren.network.stored import NEXT_KEY_FILE, preshared_generator
from warren.render.columns import columns
from warren.vars.check import Scope, accepted
from warren.vars.generate import Failure, KeyRequest, Selection, Work, carry_out, work
from warren.vars.generators import (
    Variable,
    by_hand,
    generators,
    is_stale,
    overtaken,
    paths_of,
    same_value,
    shortened,
    validations,
)
from warren.vars.reach import Reach
from warren.vars.sealed import SealedFile
from warren.wireguard.keys import PublicKey
from warren.workspace.folder import Folder, open_folder
from warren.workspace.git import commit, message_for
from warren.workspace.source import find_inventory, load_inventory

if TYPE_CHECKING:
    from warren.lab.lab import Lab
    from warren.lab.place import Place


@click.group("vars", context_settings={"help_option_names": ["-h", "--help"]})
def vars_group() -> None:
    """Generated values: keys, made on the machines, and addresses, made from names.

    They are stored in the folder `vars` beside the inventory, in the layout of clan repositories.
    """


@vars_group.command()
@services_option
@machines_option
@click.option("--regenerate", is_flag=True, help="Make what is there anew; see above.")
@click.option("--at-once", is_flag=True, help="Replace keys that are in use instead of rotating them; see above.")
@click.option("--here", metavar="MACHINE", help="Which machine of the inventory this computer is; else by its name.")
@click.option("--lab", metavar="NAME", help="Reach the machines of this running lab.")
@json_option
@commit_option
@click.pass_obj
def generate(
    given: str | None,
    services: tuple[str, ...],
    machines: tuple[str, ...],
    regenerate: bool,
    at_once: bool,
    here: str | None,
    lab: str | None,
    as_json: bool,
    commits: bool,
) -> int:
    """Make what is missing; one git commit of it.

    Keys are made on their machines, only public keys come back. What could be made is stored even if some machines
    failed; the exit code is 4 then. Machines that are not managed make their keys themselves; how, is said. A key with
    `keys = "vault"` is made here, and stored encrypted.

    --regenerate makes new keys. A machine that follows a published document makes its next key beside the one in use,
    and `warren machines update` brings it into use without loss. With --at-once the key is replaced, and the machine is
    cut off until it and the others are updated: for a key that was stolen.

    Addresses stay, unless their generator is named with --service: an address follows from the machine's name, so the
    first free one is the same again. It is another one only where the stored one was chosen by hand, or gave way to a
    machine whose values are gone since.

    Preshared keys (wireguard-psk-INSTANCE, where the instance has psk = true) are made by one machine of each pair and
    brought to the other, sealed. Those that are missing, `warren machines update` has made; with --regenerate the next
    ones are made, and the update brings them into use without loss; --machine chooses the pairs of that machine. With
    --at-once its pairs begin anew: for a machine that has lost its preshared keys.
    """
    folder = _folder(given)
    known = {preshared_generator(name): name for name in folder.inventory.instances}
    if chosen := [known[name] for name in services if name in known]:
        return generate_preshared(
            folder, chosen, services, machines,
            regenerate=regenerate, at_once=at_once, commits=commits, as_json=as_json,
        )  # fmt: skip
    follows = frozenset() if at_once else follows_of(folder)
    selection = Selection(frozenset(services), frozenset(machines), regenerate, follows)
    return generate_selected(folder, selection, ways(folder, here, lab), commits, as_json=as_json)


def generate_preshared(
    folder: Folder,
    instances: list[InstanceName],
    services: Sequence[str],
    machines: Sequence[str],
    *,
    regenerate: bool,
    at_once: bool,
    commits: bool,
    as_json: bool,
) -> int:
    """Have preshared keys made, and say what came of it; the exit code."""
    from warren.fleet.rollout import PARALLEL
    from warren.fleet.run import Run, select

    if len(instances) < len(services):
        raise UsageError("preshared keys are made by a run of their own", mend="name wireguard-psk-… generators alone")
    for name in instances:
        if not folder.inventory.instances[name].psk:
            raise UsageError(f"instance {quoted(name)} has no preshared keys", mend=f"set instances.{name}.psk = true")
    if at_once and not machines:
        raise UsageError("--at-once cuts machines off: which?", mend="name them: --machine MACHINE")
    select(folder.inventory, machines, ())
    run = Run(folder, lambda line: click.echo(line, err=True))
    with run.locked("generate", commits=commits):
        problems = run.replace_preshared(
            select(folder.inventory, (), ()), instances, machines, PARALLEL, regenerate=regenerate, at_once=at_once
        )
    for problem in problems:
        click.echo(problem, err=True)
    if run.written:
        click.echo("next: warren machines update brings the new keys into use", err=True)
    elif not problems:
        click.echo("nothing is missing", err=True)
    if as_json:
        texts = {each: run.folder.texts[each] for each in run.written if each in run.folder.texts}
        tree = _made_tree(texts, (), ()) | {"failed": [{"problem": problem} for problem in problems]}
        click.echo(json.dumps(tree, indent=2))
    return EXIT_MACHINE_FAILED if problems else 0


def generate_selected(
    folder: Folder, selection: Selection, reaches: list[Reach], commits: bool, *, as_json: bool = False
) -> int:
    """Carry out the run, and say what came of it; the exit code."""
    written: dict[Variable, str] = {}

    def done(variable: Variable, text: str) -> None:
        written[variable] = text
        click.echo(f"{variable} {shortened(variable, text)}", err=True)

    with folder.store.lock(waiting):
        found = work(folder.inventory, folder.texts, selection, folder.hashes)
        try:
            failures = have_made(folder, found, reaches, done)
        finally:  # after an interruption or on a full disk too: what is stored is committed
            if commits:
                commit_written(folder, "generate", [*written, *folder.vault.taken_written()])
    for failure in failures:
        click.echo(f"{failure.variable.machine}: {failure.message}", err=True)
    for request in found.vault:
        _say_how_it_goes_on(folder, request, written)
    for variable in found.by_hand:
        click.echo(f"{variable.machine} is not managed: {by_hand(variable)}", err=True)
    if any(variable.file == NEXT_KEY_FILE for variable in written):
        click.echo("next: warren machines update brings the new keys into use", err=True)
    if not written and not failures and not found.by_hand:
        click.echo("nothing is missing", err=True)
    if as_json:
        click.echo(json.dumps(_made_tree(written, failures, found.by_hand), indent=2))
    return EXIT_MACHINE_FAILED if failures else 0


def have_made(
    folder: Folder, found: Work, reaches: Sequence[Reach], done: Callable[[Variable, str], None]
) -> tuple[Failure, ...]:
    """Store what the run found, and have keys made in these ways, and over ssh. Returns what could not be made."""
    learn_host_keys(folder, found, reaches, _say)
    return carry_out(found, folder.store, [*reaches, over_ssh(folder, found, reaches)], done, folder.vault)


def _made_tree(
    written: Mapping[Variable, str], failures: Iterable[Failure], left: Iterable[Variable]
) -> dict[str, object]:
    return {
        "written": [variable._asdict() | {"value": text} for variable, text in written.items()],
        "failed": [failure.variable._asdict() | {"problem": failure.message} for failure in failures],
        "by_hand": [variable._asdict() | {"mend": by_hand(variable)} for variable in left],
    }


vars_group.add_command(rotate)
vars_group.add_command(check)
vars_group.add_command(fix)
vars_group.add_command(reseal)
vars_group.add_command(upload)


@vars_group.command("list")
@click.argument("names", nargs=-1, metavar="[MACHINE]...")
@services_option
@machines_option
@json_option
@click.pass_obj
def list_values(
    given: str | None, names: tuple[str, ...], services: tuple[str, ...], machines: tuple[str, ...], as_json: bool
) -> None:
    """What is stored, of all machines or of these."""
    folder = _folder(given)
    scope = Scope(frozenset(services), frozenset((*names, *machines)))
    if scope.has_strangers(folder.texts):
        scope.refuse_unknown(folder.inventory, folder.texts)
    chosen = {variable: text for variable, text in sorted(folder.texts.items()) if scope.has(variable)}
    if as_json:
        values = [variable._asdict() | {"value": text} for variable, text in chosen.items()]
        click.echo(json.dumps({"values": values}, indent=2))
    elif chosen:
        rows = [(*variable, shortened(variable, text)) for variable, text in chosen.items()]
        click.echo(columns([("MACHINE", "GENERATOR", "FILE", "VALUE"), *rows]), nl=False)
    else:
        click.echo("nothing is stored yet; warren vars generate", err=True)


@vars_group.command()
@click.argument("machine")
@click.argument("value", metavar="GENERATOR/FILE")
@json_option
@click.pass_obj
def get(given: str | None, machine: str, value: str, as_json: bool) -> None:
    """Print one public value, exactly as it is stored."""
    variable = _variable(machine, value)
    data = _folder(given).store.value(variable)
    if as_json:
        click.echo(json.dumps(variable._asdict() | {"value": data.decode(errors="replace").removesuffix("\n")}))
        return
    sys.stdout.buffer.write(data)
    if sys.stdout.isatty() and not data.endswith(b"\n"):
        click.echo()


@vars_group.command("set")
@click.argument("machine")
@click.argument("value", metavar="GENERATOR/FILE")
@click.argument("text", required=False, metavar="[TEXT]")
@commit_option
@click.pass_obj
def set_value(given: str | None, machine: str, value: str, text: str | None, commits: bool) -> None:
    """Store a value that was made elsewhere: TEXT, or what stdin says.

    \b
    ssh laptop1 sudo warren vars keygen vpn | warren vars set laptop1 wireguard-keys-vpn/publickey
    """
    folder = _folder(given)
    variable = _variable(machine, value)
    if text is None:
        text = sys.stdin.buffer.read().decode(errors="replace")
    with folder.store.lock(waiting):
        stored = accepted(folder.inventory, folder.texts, variable, text)
        generator = generators(folder.inventory).get(variable.generator)
        is_kept = same_value(variable, folder.texts.get(variable), stored)
        if is_kept and not (generator and is_stale(generator, variable.machine, folder.hashes)):
            click.echo(f"{variable} is that already", err=True)
            return
        hashes = validations(generator, variable.machine) if generator else {}
        folder.store.delete(overtaken(variable, folder.texts))
        folder.store.write({**hashes, variable: stored})
        click.echo(f"{variable} {shortened(variable, stored)}", err=True)
        if commits:
            commit_written(folder, "set", [variable])


@vars_group.command()
@click.argument("instance")
@click.option("--regenerate", is_flag=True, help="Make a new key in place of the one that is there.")
@json_option
def keygen(instance: str, regenerate: bool, as_json: bool) -> None:
    """Print this machine's public key for INSTANCE.

    Run as root on the machine itself. Its private key is made if it has none, and stays there:
    /var/lib/warren/INSTANCE/private.key, for root alone.
    """
    if not is_host_name(instance):
        raise UsageError(f"{quoted(instance)} is no instance's name", mend=HOST_NAME_RULE)
    if os.geteuid() != 0:
        raise UsageError("this needs root: private keys are root's own", mend=f"sudo warren vars keygen {instance}")
    key = _make_key(InstanceName(instance), regenerate).text
    click.echo(json.dumps({"public_keys": {instance: key}}) if as_json else key)


def _folder(given: str | None) -> Folder:
    path = find_inventory(Path.cwd(), given)
    if not path.exists() or path.is_dir():  # else a name that is mistyped would show the values that lie here
        load_inventory(path)
    return open_folder(path)


def _variable(machine: str, value: str) -> Variable:
    generator, slash, file = value.partition("/")
    if not slash:
        raise UsageError(
            f"{quoted(value)} is no GENERATOR/FILE", mend=f"warren vars list {machine} shows what there is"
        )
    return Variable(MachineName(machine), generator, file)


def waiting() -> None:
    click.echo("another warren is at work in this folder; waiting for it", err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_how_it_goes_on(folder: Folder, request: KeyRequest, written: Collection[Variable]) -> None:
    """Of a key in the vault whose machine Warren does not run on."""
    machine = folder.inventory.machines[request.variable.machine]
    if not machine.managed and request.variable in written:
        _say(f"{machine.name} is not managed: warren render {machine.name} --format qr --with-key, or another format")


def commit_written(folder: Folder, verb: str, written: Sequence[Variable | SealedFile]) -> None:
    """One git commit of these values, and what came of it on stderr."""
    if not written:
        return
    message = message_for(verb, [(variable.generator, variable.machine) for variable in written])
    gone = [gone for each in written if isinstance(each, Variable) for gone in overtaken(each, folder.readable)]
    done = commit(folder.path, paths_of([*written, *gone]), message)
    if done.id:
        click.echo(f"git commit {done.id}: {message}", err=True)
    if done.note:
        click.echo(done.note, err=True)


def ways(folder: Folder, here: str | None = None, lab: str | None = None) -> list[Reach]:
    """The ways to machines: those that were named, else this computer for itself."""
    machines = folder.inventory.machines
    if here is not None and here not in machines:
        raise UsageError(f"there is no machine {quoted(here)}", mend=Nearest().hint(here, machines, "Machines"))
    if lab is not None:
        from warren.lab.lab import find_lab

        return [InLab(find_lab(lab))]
    return [ThisMachine(MachineName(here) if here else _own_name())]


def _own_name() -> MachineName:
    from warren.host import state

    return state.machine_name() or MachineName(socket.gethostname().split(".")[0])


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """The way to the very machine that this runs on."""

    name: MachineName

    def reaches(self, machine: MachineName) -> bool:
        return machine.lower() == self.name.lower()

    def make_key(self, machine: MachineName, instance: InstanceName, replace: bool) -> PublicKey:
        if os.geteuid() != 0:
            raise MachineError("this computer is it, and private keys are root's own", mend="run this with sudo")
        return _make_key(instance, replace)

    def stage_key(self, machine: MachineName, instance: InstanceName) -> PublicKey:
        if os.geteuid() != 0:
            raise MachineError("this computer is it, and private keys are root's own", mend="run this with sudo")
        return _stage_key(instance)


@dataclass(frozen=True, slots=True)
class InLab:
    """The way to the machines of a running lab."""

    lab: Lab

    def reaches(self, machine: MachineName) -> bool:
        return machine in self.lab.state.machines

    def make_key(self, machine: MachineName, instance: InstanceName, replace: bool) -> PublicKey:
        from warren.lab.place import call

        return call(self._place(machine), _make_key, instance, replace)

    def stage_key(self, machine: MachineName, instance: InstanceName) -> PublicKey:
        from warren.lab.place import call

        return call(self._place(machine), _stage_key, instance)

    def _place(self, machine: MachineName) -> Place:
        place = self.lab.places().get(machine)
        if place is None:
            raise LabError("it is dead", mend=f"warren lab fault heal {machine} --name {self.lab.state.name}")
        return place


def _make_key(instance: InstanceName, replace: bool) -> PublicKey:
    """Here, wherever this is run."""
    from warren.host import keys

    return keys.replace_key(instance) if replace else keys.ensure_key(instance)


def _stage_key(instance: InstanceName) -> PublicKey:
    """Here, wherever this is run."""
    from warren.host import keys

    return keys.stage_key(instance)
