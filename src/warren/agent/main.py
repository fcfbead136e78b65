"""The machine's side as a program: what runs when `warren` is called on a machine, by hand, by systemd or over ssh.

    warren apply [--document FILE]… [--check] [--machine NAME]
    warren down INSTANCE…
    warren agent [--machine NAME]
    warren status [--json] [--machine NAME]
    warren join [LINE] [--dry-run]         into a mesh, by an invitation; without LINE, it is read from stdin
    warren machine …                       for the operator's side: JSON on stdout, talk on stderr

`warren machine` subcommands end with 0 and one JSON object, or with another code, words on stderr and no JSON.
Only `receive` has both, code 4 and an answer, when an instance has an error.

    facts                               warren.agent.facts says what it prints
    keygen INSTANCE… [--replace | --stage] [--machine NAME]
        {"public_keys": {I: base64}}    keys that are there stay, unless they are to be replaced; --stage: the next
                                        ones, which wait beside them; with --machine, the machine notes that name as
                                        its own, and refuses another one later
    keys INSTANCE… [--machine NAME]
        {"public_keys": {I: [base64]}}  of keys that are there: the one that counts, the next one; none is made
    preshared-make INSTANCE [--machine NAME]
        stdin: {"public_key": own, "others": {M: base64}}
        {"sealed": {M: {"number", "fingerprint", "sealed": base64}}}
                                        a preshared key for the pair with each of these, kept here, and sealed for M
                                        by the public key that stands there; one that was made and is in no document
                                        yet is sealed again
    preshared-take INSTANCE [--machine NAME]
        stdin: {"public_key": own, "sealed": {M: {"public_key", "number", "fingerprint", "sealed"}}}
        {"held": {M: fingerprint}, "refused": {M: text}}       what the others made and sealed for this machine
    keep [--machine NAME]
        stdin: {"keys": {I: {"key": base64 or null, "next": base64 or null}}}      private keys, made by the operator
        {"kept": {I: {"public_keys": [base64], "was_empty": bool}}}     of each instance, what the machine has now;
                                        a key that is there stays, and another one waits beside it as the next
    receive [--machine NAME]
        stdin: {"documents": {I: {"document": text, "signature": text}}, "confirm_within_s": 60, "dry_run": false}
        {"instances": {I: {"steps": [command], "error": null or text, "notes": [text]}}, "token": T or null,
         "restored": bool}
                                        Without error and with a token: applied, and undone unless confirmed within
                                        that time of the answer (applying it may take as long again).
                                        Without error and token: nothing on the machine had to change for the documents.
                                        An error in one instance: none follows its new document. With "restored" the
                                        change had begun, and the machine is as it was.
    confirm TOKEN
        {"confirmed": T}                can be repeated
    restore TOKEN | restore --when-due
        {"restored": bool, "why": text or null, "problems": [text]}   false: nothing was on trial by that token
    drain INSTANCE… | undrain INSTANCE…
        {"draining": bool, "left": bool}    this controller asks its peers to leave it, or to come back, also after a
                                        reboot; left: all that it hears of use it no more (of undrain: may again)
    fetch INSTANCE CONTROLLER=SERIAL…
        {"followed": serial}            what the agent does when controllers say that they follow a newer document
    guests INSTANCE
        {"hand_ins": […], "refusals": […]}  who came to this controller by invitations (warren.host.guestbook)
    forget INSTANCE…
        {"forgotten": [I]}              takes them off, with document and key; none of it need be there

Exit codes: 0 done, 2 usage, 3 changes wait (`apply --check`), 4 the machine cannot, 70 a bug.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import warren
from warren.errors import DocumentRefused, UsageError, WarrenError

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from warren.agent.machine import Verdict
    from warren.host.machine import Host
    from warren.names import InstanceName

LARGEST_DOCUMENT_BYTES = 64 * 1024 * 1024  # 10,000 machines are 1.5 MB

CHANGES_WAIT = 3
MACHINE_FAILED = 4
OUR_BUG = 70  # EX_SOFTWARE, sysexits.h
INTERRUPTED = 130

Command: TypeAlias = Callable[[argparse.Namespace], int]

_SYSLOG = Path("/dev/log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = _parser().parse_args(arguments)
    command: Command = given.command
    try:
        return command(given)
    except WarrenError as error:
        _complain(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader has enough; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        import traceback

        _complain(f"{traceback.format_exc()}This is a bug in Warren: the lines above say where.")
        return OUR_BUG


def _complain(text: object) -> None:
    from warren.host import service

    service.complain(text)


@cache  # for commands that the running agent is asked to carry out
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="warren", description="Warren on this machine.")
    parser.add_argument("--version", action="version", version=f"warren {warren.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument(
        "--machine",
        dest="name",
        metavar="NAME",
        help="which machine of the documents this is; else what was noted here, else the host name",
    )

    each = _add(commands, "apply", _apply, "Make this machine what its network documents say.", named)
    each.add_argument(
        "--document",
        dest="files",
        action="append",
        default=[],
        metavar="FILE",
        type=Path,
        help="a network document to follow from now on (repeatable); else those that the machine has",
    )
    each.add_argument(
        "--check", action="store_true", help="only say what would be done; exit code 3 if there is something"
    )
    each = _add(commands, "down", _down, "Take instances off this machine, their documents included. Keys stay.")
    each.add_argument("instances", nargs="+", metavar="INSTANCE")
    _add(commands, "agent", _agent, "Keep this machine as its network documents say; the mesh outlives it.", named)
    each = _add(commands, "status", _status, "What WireGuard says on this machine.", named)
    each.add_argument("--json", dest="as_json", action="store_true", help="for programs")

    each = _add(commands, "join", _inside, "Come into a mesh by an invitation, with the line that `invite` printed.")
    each.add_argument("line", nargs="?", default="-", metavar="LINE", help="else it is read from stdin")
    each.add_argument("--dry-run", action="store_true", help="only say whether this machine could")
    each.set_defaults(inside="join")

    each = commands.add_parser("machine", help="For the operator's side: JSON on stdout.")
    machine = each.add_subparsers(metavar="COMMAND", required=True)
    _add(machine, "facts", _facts, "What this machine is and has.")
    each = _add(machine, "keygen", _keygen, "Make this machine's keys; print the public ones.", named)
    each.add_argument("instances", nargs="+", metavar="INSTANCE")
    how = each.add_mutually_exclusive_group()
    how.add_argument("--replace", action="store_true", help="make new ones where there are some")
    how.add_argument("--stage", action="store_true", help="make the next ones, and go on with those that there are")
    each = _add(machine, "keys", _keys, "Print the public halves of the keys that this machine has.", named)
    each.add_argument("instances", nargs="+", metavar="INSTANCE")
    for verb, text in (
        ("preshared-make", "Make preshared keys; print them sealed, each for one other machine alone."),
        ("preshared-take", "Keep preshared keys that others made and sealed for this machine."),
    ):
        each = _add(machine, verb, _preshared, text, named)
        each.add_argument("instances", nargs=1, metavar="INSTANCE")
        each.set_defaults(is_maker=verb == "preshared-make")
    _add(machine, "keep", _keep, "Keep the private keys on stdin.", named)
    _add(machine, "receive", _receive, "Follow the signed documents on stdin, on trial.", named)
    each = _add(machine, "confirm", _confirm, "What was received is good.")
    each.add_argument("token", metavar="TOKEN")
    each = _add(machine, "restore", _restore, "Go back to what was confirmed last.")
    which = each.add_mutually_exclusive_group(required=True)
    which.add_argument("token", nargs="?", metavar="TOKEN")
    which.add_argument("--when-due", action="store_true", help="wait until nobody confirmed in time")
    each = _add(machine, "fetch", _inside, "Fetch a newer document from controllers, and follow it on trial.", named)
    each.add_argument("instances", nargs=1, metavar="INSTANCE")
    each.add_argument("said", nargs="+", metavar="CONTROLLER=SERIAL", help="which document it says that it follows")
    each.set_defaults(inside="fetch")
    for verb, text in (("drain", "Ask the peers of this controller to leave it."), ("undrain", "Ask them back.")):
        each = _add(machine, verb, _drain, text, named)
        each.add_argument("instances", nargs="+", metavar="INSTANCE")
        each.set_defaults(draining=verb == "drain")
    each = _add(machine, "guests", _inside, "Who came to this controller by invitations.")
    each.add_argument("instances", nargs=1, metavar="INSTANCE")
    each.set_defaults(inside="guests")
    each = _add(machine, "forget", _forget, "Take instances off this machine, with documents and keys.")
    each.add_argument("instances", nargs="+", metavar="INSTANCE")
    return parser


def _add(commands: Any, name: str, command: Command, text: str, *parents: argparse.ArgumentParser) -> Any:
    parser = commands.add_parser(name, help=text, description=text, parents=parents)
    parser.set_defaults(command=command)
    return parser


# By hand, and by systemd


def _apply(given: argparse.Namespace) -> int:
    from warren.agent import machine as this_machine
    from warren.agent import restore

    host = _host()
    me = this_machine.who_am_i(host, given.name)
    new = dict(map(_read_document, given.files))
    if not new and not host.instances():
        raise UsageError(
            "this machine has no network document", where=str(host.state), mend="warren apply --document FILE"
        )
    if given.check:
        return _report(this_machine.check_follow(host, me, new), check=True)
    restore.restore_if_due(host)
    return _report(this_machine.follow(host, me, new), check=False)


def _read_document(path: Path) -> tuple[InstanceName, bytes]:
    from warren.network.document import decode

    try:
        with path.open("rb") as file:  # or a pipe: `… | warren apply --document /dev/stdin`
            content = file.read(LARGEST_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", mend="name the file of a network document") from None
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise UsageError(
            f"{path}: larger than {LARGEST_DOCUMENT_BYTES:,} bytes", mend="name the file of a network document"
        )
    try:
        return decode(content).instance, content
    except DocumentRefused as refused:
        raise DocumentRefused(refused.what, where=str(path), mend=refused.mend) from None


def _report(verdicts: Mapping[InstanceName, Verdict], check: bool) -> int:
    from warren.render.commands import log_lines

    waiting = failed = False
    for instance, verdict in sorted(verdicts.items()):
        if verdict.error is not None:
            failed = True
            print(f"{instance}: {verdict.error}", file=sys.stderr)
            continue
        for note in verdict.notes:
            print(f"{instance}: {note}", file=sys.stderr)
        if check:
            waiting = waiting or bool(verdict.steps)
            for step in verdict.steps:
                print("\n".join(log_lines(step, verdict.names)))
    return MACHINE_FAILED if failed else CHANGES_WAIT if waiting else 0


def _down(given: argparse.Namespace) -> int:
    from warren.agent import machine as this_machine
    from warren.agent import restore
    from warren.names import InstanceName

    host = _host()
    restore.restore_if_due(host)
    known = host.instances()
    for instance in given.instances:
        if instance not in known:
            raise UsageError(
                f'this machine has no instance "{instance}"',
                mend=f"it has: {', '.join(known)}" if known else "it has none",
            )
    for instance in given.instances:
        this_machine.take_down(host, InstanceName(instance))
    return 0


def _agent(given: argparse.Namespace) -> int:
    from warren.agent.machine import who_am_i
    from warren.agent.run import Agent

    host = _host()
    Agent(host, who_am_i(host, given.name), main).run()
    return 0


def _status(given: argparse.Namespace) -> int:
    import json

    from warren.agent import machine as this_machine
    from warren.agent.facts import waiting_tree
    from warren.agent.machine import Verdict
    from warren.host import trial
    from warren.render.status import status_text, status_tree

    host = _host()
    statuses, refused = this_machine.status(host, this_machine.who_am_i(host, given.name))
    failed = _report({instance: Verdict(error=error) for instance, error in refused.items()}, check=False)
    if given.as_json:
        print(json.dumps({**status_tree(statuses), **waiting_tree(host)}, indent=2))
        return failed
    for note in (trial.read(host.state), trial.read_restored(host.state)):
        if note is not None:
            print(note, end="\n\n")
    print(status_text(statuses), end="")
    return failed


# For the operator's side


def _facts(_: argparse.Namespace) -> int:
    from warren.agent.facts import facts
    from warren.host.machine import Host

    return _answer(facts(Host()))


def _keygen(given: argparse.Namespace) -> int:
    from warren.host import keys

    host = _host()
    _note_name(host, given.name)
    make = keys.replace_key if given.replace else keys.stage_key if given.stage else keys.ensure_key
    return _answer({"public_keys": {name: make(name, host.state).text for name in _instances(given)}})


def _keys(given: argparse.Namespace) -> int:
    from warren.host import keys

    host = _host()
    _refuse_other_name(host, given.name)
    return _answer(
        {"public_keys": {name: [key.text for key in keys.own_keys(name, host.state)] for name in _instances(given)}}
    )


def _preshared(given: argparse.Namespace) -> int:
    from warren.agent import preshared
    from warren.agent.machine import who_am_i

    host = _host(to_syslog=True)
    [instance] = _instances(given)
    _note_name(host, given.name)
    own, request = preshared.parse(sys.stdin.buffer.read(), instance, who_am_i(host, given.name))
    answer = preshared.make if given.is_maker else preshared.take
    return _answer(answer(host, own, request))


def _keep(given: argparse.Namespace) -> int:
    from warren.agent import keeping
    from warren.agent.machine import who_am_i

    host = _host(to_syslog=True)
    request = keeping.parse(sys.stdin.buffer.read())
    _note_name(host, given.name)
    return _answer({"kept": keeping.keep(host, who_am_i(host, given.name), request)})


def _receive(given: argparse.Namespace) -> int:
    import signal

    from warren.agent import receive
    from warren.agent.machine import who_am_i

    # The change may cut this very ssh session; it is finished nevertheless, and undone if nobody can confirm it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    host = _host(to_syslog=True)
    request = receive.parse(sys.stdin.buffer.read())
    _note_name(host, given.name)
    answer = receive.receive(host, who_am_i(host, given.name), request)
    _answer(receive.answer_tree(answer))
    return MACHINE_FAILED if any(verdict.error for verdict in answer.verdicts.values()) else 0


def _confirm(given: argparse.Namespace) -> int:
    from warren.agent import restore

    restore.confirm(_host(to_syslog=True), given.token)
    return _answer({"confirmed": given.token})


def _restore(given: argparse.Namespace) -> int:
    from warren.agent import restore

    host = _host(to_syslog=True)
    if given.when_due:
        restored = restore.restore_when_due(host, sys.stdin.fileno())
    else:
        restored = restore.restore(host, given.token)
    problems = list(restored.problems) if restored else []
    _answer({"restored": restored is not None, "why": restored.why if restored else None, "problems": problems})
    return MACHINE_FAILED if problems else 0


def _drain(given: argparse.Namespace) -> int:
    from warren.agent import drain
    from warren.agent.machine import who_am_i

    host = _host(to_syslog=True)
    left = drain.drain(host, who_am_i(host, given.name), _instances(given), given.draining)
    return _answer({"draining": given.draining, "left": left})


def _inside(given: argparse.Namespace) -> int:
    from warren.agent import inside

    answer = inside.COMMANDS[given.inside](_host(to_syslog=True), given)
    return 0 if answer is None else _answer(answer)


def _forget(given: argparse.Namespace) -> int:
    from warren.agent import machine as this_machine
    from warren.agent import restore

    host = _host(to_syslog=True)
    restore.restore_if_due(host)
    names = _instances(given)
    for name in names:
        this_machine.take_down(host, name, keep_key=False)
    return _answer({"forgotten": names})


def _answer(tree: Mapping[str, object]) -> int:
    import json

    print(json.dumps(tree), flush=True)
    return 0


def _instances(given: argparse.Namespace) -> list[InstanceName]:
    from warren.names import HOST_NAME_RULE, InstanceName, is_host_name

    for name in given.instances:
        if not is_host_name(name):
            raise UsageError(f"{name!r} is no instance's name: {HOST_NAME_RULE}")
    return [InstanceName(name) for name in given.instances]


def _note_name(host: Host, given: str | None) -> None:
    from warren.agent.machine import who_am_i
    from warren.host import state

    _refuse_other_name(host, given)
    if given is not None and host.machine_name() is None:
        state.write_machine_name(who_am_i(host, given), host.state)


def _refuse_other_name(host: Host, given: str | None) -> None:
    from warren.agent.machine import who_am_i

    noted = host.machine_name()
    if None not in (given, noted) and noted != (name := who_am_i(host, given)):
        raise UsageError(
            f'this machine is "{noted}", not "{name}"',
            where=str(host.state),
            mend="see where deploy.host leads; if the machine was renamed: warren machines uninstall, then install",
        )


def _host(*, to_syslog: bool = False) -> Host:
    from warren.host import service
    from warren.host.machine import Host

    if os.geteuid() != 0:
        raise UsageError("this needs root: it speaks to the kernel's network configuration", mend="sudo warren …")
    in_journal = service.has_journal()
    handler = logging.StreamHandler()
    handler.setFormatter(service.JournalFormatter() if in_journal else logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if to_syslog and not in_journal and _SYSLOG.exists():
        _log_to_syslog()
    return Host()


def _log_to_syslog() -> None:
    """What the operator's side does here stands in this machine's own log, too."""
    from logging.handlers import SysLogHandler

    handler = SysLogHandler(str(_SYSLOG), SysLogHandler.LOG_DAEMON)
    handler.append_nul = False
    handler.setFormatter(logging.Formatter(f"warren[{os.getpid()}]: %(message)s"))
    logging.getLogger("warren").addHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
