"""What the running agent does for those who ask, and what they do by themselves where it does not."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from namespaces import drop_root, in_namespace, wait_until
from warren.agent import requests
from warren.agent.requests import PATH, RequestSocket

pytestmark = pytest.mark.root

ARCHIVE = Path("/run/warren.pyz")  # what is started where the agent does not do it
DONE = Path("/run/done")
SOURCE = Path(requests.__file__).parents[2]
CALLER = f"""\
import sys
sys.path.insert(0, {str(SOURCE)!r})
from warren.fleet import ask
ask.BUNDLE, ask.BUSY_S = {str(ARCHIVE)!r}, 0.5
sys.exit(ask.main())
"""
RECEIVE = ("machine", "receive", "--machine", "server1")


def echo(words: Sequence[str]) -> int:
    print(words, sys.stdin.read(), flush=True)
    print("talk", file=sys.stderr, flush=True)
    DONE.write_text("")
    return 4


def asked(*words: str, **more: object) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", CALLER, *words], input="given", capture_output=True, text=True, **more)  # type: ignore[call-overload]
    return done.returncode, done.stdout, done.stderr


def by_itself(*words: str) -> tuple[int, str, str]:
    return 0, f"by itself: {list(words)}\n", ""


@contextmanager
def agent(act: Callable[[Sequence[str]], int] = echo, own: str | None = None) -> Iterator[int]:
    """Somebody who serves requests as the agent does; its pid."""
    process = os.fork()
    if process == 0:
        os.environ["NOTIFY_SOCKET"] = "/run/notify"
        with RequestSocket(act, requests.stamp(ARCHIVE) if own is None else own) as served:
            while select.select([served], [], []):
                served.serve()
    try:
        wait_until(PATH.exists, what="the agent")
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def on_a_machine(body: Callable[[], None]) -> None:
    def prepared() -> None:
        ARCHIVE.write_text("import sys\nprint('by itself:', sys.argv[1:])\n")
        body()

    in_namespace(prepared)


def test_words_streams_and_exit_code_go_through() -> None:
    def body() -> None:
        with agent():
            for _ in range(3):
                assert asked(*RECEIVE) == (4, f"{list(RECEIVE)} given\n", "talk\n")
            assert asked("machine", "confirm", "t") == (4, "['machine', 'confirm', 't'] given\n", "talk\n")

    on_a_machine(body)


def test_who_asks_does_it_by_himself_where_there_is_no_agent_or_another_one() -> None:
    def body() -> None:
        assert asked(*RECEIVE) == by_itself(*RECEIVE)
        for own in ("", "1:2:3:4"):
            with agent(own=own):
                assert asked(*RECEIVE) == by_itself(*RECEIVE)
        with agent():
            assert asked(*RECEIVE)[0] == 4
            new = ARCHIVE.with_suffix(".new")  # another Warren is installed
            new.write_bytes(ARCHIVE.read_bytes())
            new.replace(ARCHIVE)
            assert asked(*RECEIVE) == by_itself(*RECEIVE)
        assert asked(*RECEIVE) == by_itself(*RECEIVE)  # one that died left its socket

    on_a_machine(body)


def test_only_an_update_is_served() -> None:
    def body() -> None:
        with agent():
            for words in (("machine", "restore", "t"), ("down", "vpn"), ("machine",), ()):
                assert asked(*words) == by_itself(*words)
        assert not DONE.exists()

    on_a_machine(body)


def test_nobody_but_root_is_served() -> None:
    def body() -> None:
        with agent():
            assert PATH.stat().st_mode & 0o777 == 0o600
            for mode in (0o600, 0o666):  # and if it were not so
                PATH.chmod(mode)
                assert not in_another_users_name()
        assert not DONE.exists()

    on_a_machine(body)


def in_another_users_name() -> bytes:
    """What one who is not root gets to hear; that his words are fine is seen with root's."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        drop_root()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, suppress(OSError):
            connection.connect(str(PATH))
            message = "\0".join([requests.stamp(ARCHIVE), *RECEIVE]).encode()
            connection.send(message)
            os.write(writer, connection.recv(16))
        os._exit(0)
    os.close(writer)
    os.waitpid(process, 0)
    with os.fdopen(reader, "rb") as answer:
        return answer.read()


def test_an_agent_that_is_busy_is_not_waited_for_and_does_nothing_later() -> None:
    def body() -> None:
        with agent() as process:
            os.kill(process, signal.SIGSTOP)
            assert asked(*RECEIVE) == by_itself(*RECEIVE)
            os.kill(process, signal.SIGCONT)
            assert asked("machine", "confirm", "t")[0] == 4  # those before were looked at
            DONE.unlink()
            wait_until(lambda: not _forks(), what="the end of all forks")
            assert not DONE.exists()

    on_a_machine(body)


def test_a_fork_that_dies_is_an_error_and_the_agent_goes_on() -> None:
    def die(words: Sequence[str]) -> int:
        if "--die" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        return echo(words)

    def body() -> None:
        with agent(die):
            code, out, err = asked(*RECEIVE, "--die")
            assert (code, out) == (70, "")
            assert "died; what it changed is taken back" in err
            assert asked(*RECEIVE)[0] == 4

    on_a_machine(body)


def test_a_command_outlives_who_asked_and_the_agent() -> None:
    """As an ssh session that the change cuts off."""

    def wait(words: Sequence[str]) -> int:
        DONE.write_text("begun")
        wait_until(Path("/run/go").exists, what="the word")
        DONE.write_text("done")
        return 0

    def body() -> None:
        with agent(wait):
            caller = subprocess.Popen([sys.executable, "-c", CALLER, *RECEIVE], start_new_session=True)
            wait_until(lambda: DONE.exists() and DONE.read_text() == "begun", what="the beginning")
            os.killpg(caller.pid, signal.SIGKILL)
            caller.wait()
        Path("/run/go").write_text("")
        wait_until(lambda: DONE.read_text() == "done", what="the end")

    on_a_machine(body)


def test_a_fork_has_nothing_of_the_agent() -> None:
    def look(_: Sequence[str]) -> int:
        print(
            len(list(Path("/proc/self/fd").iterdir())),
            os.getsid(0) == os.getsid(os.getppid()),
            "NOTIFY_SOCKET" in os.environ,
            Path.cwd(),
        )
        return 0

    def body() -> None:
        with Path("/run/other").open("w"), agent(look):
            # Its streams, the connection, and the list of files itself.
            assert asked(*RECEIVE) == (0, "5 False False /\n", "")

    on_a_machine(body)


def _forks() -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/comm"):
        try:
            found.append(each.read_text().strip())
        except OSError:  # it ended meanwhile
            continue
    return [name for name in found if name == "warren-request"]
