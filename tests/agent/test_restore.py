"""Whatever happens to an update that nobody confirms, the machine is afterwards what it was before."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest

import warren as warren_package
from namespaces import sh, wait_until
from operators import (
    LAPTOP1,
    SERVER1,
    SNAPSHOT,
    VPN,
    as_json,
    document,
    errors,
    local_mesh,
    on_a_machine,
    request,
    send,
    warren,
)
from warren.agent import machine as this_machine
from warren.agent import receive, restore, run
from warren.agent.main import main
from warren.errors import MachineError
from warren.host import timer, trial
from warren.host.machine import Host
from warren.names import InstanceName, MachineName
from warren.network.document import Document, encode

pytestmark = pytest.mark.root

SHORT_S = 3.0  # to confirm within; what dies before is noticed at once
SOON_S = 30.0  # for a restore that is due


def before(host: Host, me: MachineName) -> Document:
    return document(host, local_mesh("server1 server2", "laptop1 laptop2"), 1, me=me)


def after(host: Host, me: MachineName) -> Document:
    """Something of every kind is different: MTU, port, addresses, WireGuard peers come, go and change, hosts."""
    named = local_mesh("server1 server3", "laptop1 laptop3")
    controllers = {name: replace(each, mtu_bytes=1300, port=51999) for name, each in named.controllers.items()}
    peers = {name: replace(each, mtu_bytes=1300) for name, each in named.peers.items()}
    return document(host, replace(named, controllers=controllers, peers=peers, domain="burrow"), 2, me=me)


# Killed at every step


@pytest.mark.slow
@pytest.mark.parametrize("me", [SERVER1, LAPTOP1])
def test_an_apply_that_is_killed_at_any_step_is_undone(me: MachineName) -> None:
    def body(host: Host) -> None:
        old, new = before(host, me), after(host, me)
        confirmed(host, me, old)
        for number in count():
            killed = _receive_killed_at(number, host, me, new)
            wait_until(lambda: trial.read(host.state) is None, SOON_S, f"the restore after step {number}")
            _assert_follows(host, me, old, f"killed at step {number}")
            if not killed:
                break
        assert number > 30, "too few steps were seen: is there still something that counts them?"
        note = trial.read_restored(host.state)
        assert note is not None
        assert note.why == "nobody confirmed it within 3 s"  # the last one, which came to its end

    on_a_machine(body)


@pytest.mark.slow
@pytest.mark.parametrize("me", [SERVER1, LAPTOP1])
def test_a_first_document_whose_apply_is_killed_at_any_step_leaves_nothing(me: MachineName) -> None:
    def body(host: Host) -> None:
        new = after(host, me)
        empty = sh(SNAPSHOT)
        for number in count():
            killed = _receive_killed_at(number, host, me, new)
            wait_until(lambda: trial.read(host.state) is None, SOON_S, f"the restore after step {number}")
            (host.state / "restored.json").unlink(missing_ok=True)
            assert sh(SNAPSHOT) == empty, f"killed at step {number}"
            if not killed:
                break
        assert number > 30

    on_a_machine(body)


def test_a_restore_that_is_killed_at_any_step_is_done_by_the_next() -> None:
    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        for number in count():
            with no_watchdog():
                answer = send(host, new)
            token = answer.token
            assert token is not None, errors(answer)
            killed = _killed_at(number, partial(restore.restore, host, token))
            restore.restore(host, token)  # nothing to do if the first one came far enough
            _assert_follows(host, SERVER1, old, f"killed at step {number}")
            if not killed:
                break
        assert number > 15

    on_a_machine(body)


def _receive_killed_at(number: int, host: Host, me: MachineName, new: Document) -> bool:
    given = request(new, confirm_within_s=SHORT_S)
    return _killed_at(number, lambda: receive.receive(host, me, given))


def _killed_at(number: int, act: Callable[[], object]) -> bool:
    """Act in a process that is killed before its step of that number; False: it came to its end before."""
    process = os.fork()
    if process == 0:
        _act_until(number, act)
    _, status = os.waitpid(process, 0)
    assert status in (0, signal.SIGKILL), f"it ended with {status}"
    return status == signal.SIGKILL


def _act_until(number: int, act: Callable[[], object]) -> NoReturn:
    """A step is one of a plan, and every change of a name or of a whole file on the disk."""
    left, victim = number, os.getpid()

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if os.getpid() == victim:  # the watchdog is a fork of it
                if left == 0:
                    os.kill(victim, signal.SIGKILL)
                left -= 1
            return function(*arguments, **named)

        return call

    for name in ("rename", "replace", "link", "unlink", "rmdir", "mkdir", "fsync", "fork"):
        setattr(os, name, counted(getattr(os, name)))
    Host.perform = counted(Host.perform)  # type: ignore[method-assign]
    subprocess.Popen = counted(subprocess.Popen)  # type: ignore[misc]
    try:
        act()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _assert_follows(host: Host, me: MachineName, old: Document, when: str) -> None:
    assert (host.state / VPN / "network.json").read_bytes() == encode(old), when
    verdict = this_machine.check(host, me, {VPN: old})[VPN]
    assert verdict.error is None, when
    assert verdict.steps == (), when


def confirmed(host: Host, me: MachineName, *documents: Document) -> None:
    """The machine follows these, for good."""
    answer = send(host, *documents, me=me)
    assert answer.token is not None, errors(answer)
    restore.confirm(host, answer.token)


@contextmanager
def no_watchdog() -> Iterator[None]:
    """As if whatever was armed had died."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timer, "armed", lambda *_: nullcontext())
        yield


# Confirmed, or not


def test_what_is_confirmed_in_time_stays() -> None:
    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        token = send(host, new, within_s=SHORT_S).token
        assert token is not None
        assert trial.read(host.state) is not None
        restore.confirm(host, token)
        restore.confirm(host, token)  # its answer may have been lost
        wait_until(lambda: not _watchdogs(), what="the end of the watchdog")
        _assert_follows(host, SERVER1, new, "after its end")
        assert not list((host.state / VPN).glob("*.confirmed"))
        assert restore.restore(host, token) is None
        _assert_follows(host, SERVER1, new, "after a restore that came too late")

    on_a_machine(body)


def test_what_nobody_confirms_is_undone_and_the_machine_says_so() -> None:
    def body(host: Host) -> None:
        old = before(host, SERVER1)
        confirmed(host, SERVER1, old)
        here = sh(SNAPSHOT)
        token = send(host, after(host, SERVER1), within_s=SHORT_S).token
        assert token is not None
        wait_until(lambda: trial.read(host.state) is None, SOON_S, "the restore")
        wait_until(lambda: not _watchdogs(), what="the end of the watchdog")
        note = host.state / "restored.json"
        facts = json.loads(warren("machine", "facts").stdout)
        assert facts["restored"]["why"] == "nobody confirmed it within 3 s"
        assert facts["restored"]["instances"] == ["vpn"]
        shown = warren("status", "--machine", "server1").stdout.decode()
        assert "vpn: went back to the last good document at " in shown
        assert json.loads(warren("status", "--json", "--machine", "server1").stdout)["restored"]["problems"] == []
        with pytest.raises(MachineError, match=r"too late: vpn: went back .* nobody confirmed it within 3 s"):
            restore.confirm(host, token)
        note.unlink()
        assert sh(SNAPSHOT) == here
        _assert_follows(host, SERVER1, old, "in the end")

    on_a_machine(body)


def test_a_token_of_nothing_is_an_error() -> None:
    def body(host: Host) -> None:
        with pytest.raises(MachineError, match="nothing waits"):
            restore.confirm(host, "0123456789abcdef")
        assert restore.restore(host, "0123456789abcdef") is None

    on_a_machine(body)


def test_a_good_update_after_one_that_was_undone_ends_the_note() -> None:
    def body(host: Host) -> None:
        confirmed(host, SERVER1, before(host, SERVER1))
        token = send(host, after(host, SERVER1)).token
        assert token is not None
        assert restore.restore(host, token) is not None
        assert trial.read_restored(host.state) is not None
        confirmed(host, SERVER1, after(host, SERVER1))
        assert trial.read_restored(host.state) is None

    on_a_machine(body)


@pytest.mark.kernel
def test_an_update_that_is_brought_again_before_it_was_confirmed_goes_on() -> None:
    """As after a connection that broke before the token came."""

    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        first = send(host, new).token
        again = send(host, new)
        assert again.verdicts[VPN].steps == ()
        assert again.token is not None
        assert again.token != first
        assert first is not None
        with pytest.raises(MachineError, match="nothing waits"):
            restore.confirm(host, first)
        assert restore.restore(host, again.token) is not None
        _assert_follows(host, SERVER1, old, "what was confirmed before the first of them counts")

    on_a_machine(body)


@pytest.mark.kernel
def test_an_update_over_one_that_was_killed_half_way_goes_on() -> None:
    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        given = request(new)
        with no_watchdog():
            assert _killed_at(25, lambda: receive.receive(host, SERVER1, given))
        answer = send(host, new)
        assert answer.token is not None
        _assert_follows(host, SERVER1, new, "the second one")
        assert restore.restore(host, answer.token) is not None
        _assert_follows(host, SERVER1, old, "back to what was before both")

    on_a_machine(body)


@pytest.mark.kernel
def test_two_instances_go_back_together() -> None:
    def body(host: Host) -> None:
        home = InstanceName("home")
        old = [before(host, SERVER1), _home(host, 1)]
        confirmed(host, SERVER1, *old)
        new = [after(host, SERVER1), _home(host, 2, "laptop1 laptop7")]
        token = send(host, *new).token
        assert token is not None
        assert restore.restore(host, token) is not None
        for each in old:
            assert (host.state / each.instance / "network.json").read_bytes() == encode(each)
        checked = this_machine.check(host, SERVER1, {each.instance: each for each in old})
        assert {name: verdict.steps for name, verdict in checked.items()} == {VPN: (), home: ()}

    on_a_machine(body)


@pytest.mark.kernel
def test_a_new_instance_goes_and_the_one_beside_it_stays() -> None:
    def body(host: Host) -> None:
        old = before(host, SERVER1)
        confirmed(host, SERVER1, old)
        here = sh(SNAPSHOT)
        token = send(host, _home(host, 1)).token
        assert token is not None
        assert restore.restore(host, token) is not None
        _assert_follows(host, SERVER1, old, "the other instance")
        (host.state / "restored.json").unlink()
        (host.state / "home" / "private.key").unlink()
        assert sh(SNAPSHOT) == here

    on_a_machine(body)


def _home(host: Host, serial: int, peers: str = "laptop1") -> Document:
    named = local_mesh("server1", peers, "home")
    controllers = {name: replace(each, port=51821) for name, each in named.controllers.items()}
    return document(host, replace(named, controllers=controllers), serial)


# Who is there to go back


def test_the_watchdog_outlives_the_ssh_session() -> None:
    """A hangup and a killed process group, as when a session ends; and nothing holds the session open."""

    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        session = os.fork()
        if session == 0:
            os.setsid()
            answer = warren(
                "machine", "receive", "--machine", "server1", stdin=as_json(request(new, confirm_within_s=2))
            )
            Path("/run/answer").write_bytes(answer.stdout)
            signal.pause()
        wait_until(lambda: Path("/run/answer").exists() and Path("/run/answer").read_bytes(), SOON_S, "the answer")
        assert json.loads(Path("/run/answer").read_bytes())["token"]
        os.killpg(session, signal.SIGHUP)
        os.killpg(session, signal.SIGKILL)
        os.waitpid(session, 0)
        wait_until(lambda: trial.read(host.state) is None, SOON_S, "the restore")
        _assert_follows(host, SERVER1, old, "after the session's end")

    on_a_machine(body)


def test_the_watchdog_has_nothing_of_the_process_that_it_was_forked_from() -> None:
    """Not its lock, not its terminal or ssh session, not its log; and nobody waits for it."""

    def body(host: Host) -> None:
        confirmed(host, SERVER1, before(host, SERVER1))
        wait_until(lambda: not _watchdogs(), what="the end of the first watchdog")
        with Path("/run/opened").open("w"):
            token = send(host, after(host, SERVER1)).token
        assert token is not None
        (watchdog,) = _watchdogs()
        # It looks at the trial now and then.
        wait_until(lambda: _open_files(watchdog) == ["/dev/null", "/dev/null", "/dev/null", "pipe"], what="no more")
        stat = (watchdog / "stat").read_text().rpartition(")")[2].split()
        parent, group, session = map(int, stat[1:4])
        assert parent != os.getpid()
        assert not {group, session} & {os.getpgid(0), os.getsid(0)}
        assert (watchdog / "cwd").readlink() == Path("/")
        restore.confirm(host, token)
        wait_until(lambda: not _watchdogs(), what="the end of the watchdog")

    on_a_machine(body)


def _open_files(process: Path) -> list[str]:
    try:
        return sorted(str(each.readlink()).partition(":")[0] for each in (process / "fd").iterdir())
    except FileNotFoundError:  # closed meanwhile
        return []


def test_the_watchdog_goes_back_though_warren_is_gone_from_the_disk() -> None:
    """As while another version is being installed, badly: nothing can be started anew."""

    def body(host: Host) -> None:
        old = before(host, SERVER1)
        confirmed(host, SERVER1, old)
        applying = os.fork()
        if applying == 0:
            warren_package.__file__ = "/nonexistent/warren/__init__.py"
            assert send(host, after(host, SERVER1), within_s=SHORT_S).token
            os._exit(0)
        assert os.waitpid(applying, 0)[1] == 0
        wait_until(lambda: trial.read(host.state) is None, SOON_S, "the restore")
        _assert_follows(host, SERVER1, old, "in the end")

    on_a_machine(body)


def test_without_a_watchdog_nothing_is_changed() -> None:
    def body(host: Host) -> None:
        old = before(host, SERVER1)
        confirmed(host, SERVER1, old)
        here = sh(SNAPSHOT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fork", _no_more_processes)
            with pytest.raises(MachineError, match="does not start: nothing was changed"):
                send(host, after(host, SERVER1))
        assert sh(SNAPSHOT) == here
        assert trial.read(host.state) is None

    on_a_machine(body)


def _no_more_processes() -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_an_apply_that_is_stuck_with_the_lock_is_ended_when_it_is_too_late() -> None:
    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        given = request(new, confirm_within_s=2.0)
        stuck = os.fork()
        if stuck == 0:
            Host.perform = lambda *_: signal.pause()  # type: ignore[method-assign]
            receive.receive(host, SERVER1, given)
        wait_until(lambda: (host.state / VPN / "network.json").read_bytes() == encode(new), SOON_S, "the new document")
        assert os.waitpid(stuck, 0)[1] == signal.SIGKILL
        wait_until(lambda: trial.read(host.state) is None, SOON_S, "the restore")
        _assert_follows(host, SERVER1, old, "after its end")
        note = trial.read_restored(host.state)
        assert note is not None
        assert note.why == "applying it took longer than 2 s"

    on_a_machine(body)


def test_the_agent_goes_back_where_the_watchdog_was_killed() -> None:
    def body(host: Host) -> None:
        old = before(host, SERVER1)
        confirmed(host, SERVER1, old)
        with no_watchdog():
            assert send(host, after(host, SERVER1), within_s=SHORT_S).token
        wait_until(lambda: _due(host), what="the deadline")
        with _agent(host):
            wait_until(lambda: trial.read(host.state) is None, SOON_S, "the agent's restore")
            _assert_follows(host, SERVER1, old, "with the agent")

    on_a_machine(body)


def test_a_reboot_before_the_confirmation_goes_back() -> None:
    """/run is empty after it, and so is the kernel; the document that nobody confirmed is on the disk."""

    def body(host: Host) -> None:
        old = before(host, SERVER1)
        confirmed(host, SERVER1, old)
        with no_watchdog():
            assert send(host, after(host, SERVER1)).token
        file = host.state / "trial.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "the one before"}))
        sh("ip link del vpn; nft flush ruleset; rm -r /run/warren; echo '::1 localhost' > /etc/hosts")
        with _agent(host):
            wait_until(lambda: _is_as_the_document_says(host, old), SOON_S, "the mesh")
            _assert_follows(host, SERVER1, old, "after the reboot")
            note = trial.read_restored(host.state)
            assert note is not None
            assert note.why == "the machine was restarted before anybody confirmed"

    on_a_machine(body)


def _is_as_the_document_says(host: Host, document: Document) -> bool:
    verdict = this_machine.check(host, SERVER1, {VPN: document})[VPN]
    return verdict.error is None and not verdict.steps


def test_the_agent_leaves_a_trial_alone_that_goes_on() -> None:
    """It runs all the time: while the update is applied, while it waits, when it is undone."""

    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        with _agent(host):
            for _ in range(3):
                token = send(host, new, within_s=60.0).token
                assert token is not None
                sh("ip link set vpn mtu 1400")  # the agent mends it as the new document says
                wait_until(lambda: "mtu 1300" in sh("ip link show vpn"), SOON_S, "the agent")
                _assert_follows(host, SERVER1, new, "on trial")
                assert restore.restore(host, token) is not None
                sh("ip link set vpn mtu 1399")
                wait_until(lambda: "mtu 1420" in sh("ip link show vpn"), SOON_S, "the agent")
                _assert_follows(host, SERVER1, old, "undone")

    on_a_machine(body)


def test_the_agent_never_applies_an_older_document_over_a_newer_one() -> None:
    """It read the documents before it had the lock, once, and put the old one back for a moment."""

    def body(host: Host) -> None:
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        with _agent(host):
            for number in range(10):
                each = replace(old if number % 2 else new, serial=number + 2)
                assert send(host, each).token
                _assert_follows(host, SERVER1, each, f"update {number}")

    on_a_machine(body)


def test_by_hand_nothing_is_changed_meanwhile() -> None:
    def body(host: Host) -> None:
        confirmed(host, SERVER1, before(host, SERVER1))
        token = send(host, after(host, SERVER1)).token
        content = encode(before(host, SERVER1))
        acts: list[Callable[[], object]] = [
            lambda: this_machine.follow(host, SERVER1, {VPN: content}),
            lambda: this_machine.take_down(host, VPN),
        ]
        for act in acts:
            with pytest.raises(MachineError, match="an update waits to be confirmed") as caught:
                act()
            assert f"warren machine confirm {token}" in caught.value.mend
        _assert_follows(host, SERVER1, after(host, SERVER1), "still on trial")

    on_a_machine(body)


def test_going_back_needs_no_room_on_the_disk() -> None:
    def body(host: Host) -> None:
        sh("mount -t tmpfs -o size=64k none /var/lib")
        old, new = before(host, SERVER1), after(host, SERVER1)
        confirmed(host, SERVER1, old)
        token = send(host, new).token
        assert token is not None
        sh("dd if=/dev/zero of=/var/lib/full bs=1k 2> /dev/null || :")
        assert restore.restore(host, token) is not None
        _assert_follows(host, SERVER1, old, "on a full disk")
        assert trial.read(host.state) is None

    on_a_machine(body)


def test_what_stands_in_the_way_is_tried_again() -> None:
    def body(host: Host) -> None:
        old = before(host, SERVER1)
        confirmed(host, SERVER1, old)
        token = send(host, after(host, SERVER1)).token
        assert token is not None
        sh("mv /etc/hosts /etc/hosts.away; mkdir /etc/hosts")
        mender = subprocess.Popen(["sh", "-c", "sleep 2; rmdir /etc/hosts; mv /etc/hosts.away /etc/hosts"])
        restored = restore.restore(host, token)
        mender.wait()
        assert restored is not None
        assert restored.problems == ()
        _assert_follows(host, SERVER1, old, "in the end")

    on_a_machine(body)


@contextmanager
def _agent(host: Host) -> Iterator[None]:
    process = os.fork()
    if process == 0:
        run.Agent(host, SERVER1, main).run()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def _due(host: Host) -> bool:
    waiting = trial.read(host.state)
    assert waiting is not None
    return bool(waiting.reason_to_go_back())


def _watchdogs() -> list[Path]:
    """Those that wait, and what they start when they have waited enough."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            waits = (process / "comm").read_text().strip() == timer.WATCHDOG
            if waits or timer.WHEN_DUE.encode() in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:  # it ended meanwhile
            continue
    return found
