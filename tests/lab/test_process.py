"""Functions and programs in other namespaces, and inits that take everything with them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from namespaces import in_namespace, wait_until
from warren.errors import LabError, WarrenError
from warren.lab.init import NewInit, start_init
from warren.lab.namespaces import Namespace
from warren.lab.place import Place, Task, call, execute, results, spawn, start
from warren.lab.process import Process
from warren.lab.programs import environment
from warren.names import MachineName

pytestmark = pytest.mark.root

ENVIRONMENT = environment("test", MachineName("m"))


def new_init(parent: Place | None = None, prepare: Callable[[], object] = os.getpid) -> NewInit[object]:
    return start_init("machine", parent, prepare, environment={})


def new_place() -> Place:
    """Namespaces that stay until those of the test go."""
    init = new_init()
    init.result()
    init.keep()
    return init.place


def refuse() -> None:
    raise LabError("no", where="here", mend="never")


def say_and_wait(file: Path) -> None:
    file.write_text("here")
    time.sleep(100)


def say_late(file: Path) -> None:
    time.sleep(0.2)
    file.write_text("late")


def test_a_function_runs_inside_and_its_value_comes_back() -> None:
    def inside() -> tuple[list[tuple[int, str]], int]:
        place = new_place()
        return call(place, socket.if_nameindex), call(place, os.getppid)

    interfaces, parent = in_namespace(inside)
    assert [name for _, name in interfaces] == ["lo"]
    assert parent == 0  # the parent is in the pid namespace above


def test_an_exception_comes_back_whole() -> None:
    def inside() -> tuple[str, str, str]:
        with pytest.raises(LabError) as caught:
            call(new_place(), refuse)
        return caught.value.what, caught.value.where, caught.value.mend

    assert in_namespace(inside) == ("no", "here", "never")


def test_a_value_that_cannot_be_sent_is_an_error() -> None:
    def inside() -> None:
        with pytest.raises(WarrenError, match="cannot be sent"):
            call(new_place(), socket.socket)

    in_namespace(inside)


def test_all_tasks_are_waited_for_before_the_first_failure_is_raised() -> None:
    def inside() -> str:
        place = new_place()
        file = Path("/run/said")  # the place's mounts are a copy of this one's, the tmpfs on /run is the same
        tasks: list[Task[object]] = [start(place, refuse), start(place, say_late, file)]
        with pytest.raises(LabError, match="no"):
            results(tasks)
        return file.read_text()

    assert in_namespace(inside) == "late"


def test_a_function_whose_place_dies_in_the_middle_is_an_error() -> None:
    def inside() -> None:
        place, file = new_place(), Path("/run/here")
        task = start(place, say_and_wait, file)
        wait_until(file.exists)
        place.process.kill()
        with pytest.raises(LabError, match="machine went away"):
            task.result()
        with pytest.raises(LabError, match="machine is not running"):
            call(place, os.getpid)

    in_namespace(inside)


def test_a_process_that_got_the_pid_of_another_is_never_signalled() -> None:
    def inside() -> bool:
        with subprocess.Popen(["sleep", "100"]) as other:
            pidfd = os.pidfd_open(other.pid)
            found = Process.behind(pidfd)
            assert found is not None
            assert found.is_running()
            Process(other.pid, found.started - 1).kill()  # who had the pid before, or will have it
            alive = other.poll() is None
            found.kill()
            assert not found.is_running()
            assert other.wait() == -signal.SIGKILL
        return alive

    assert in_namespace(inside)


def test_what_an_init_holds_dies_with_it() -> None:
    def inside() -> int:
        outer = new_init()
        inner = new_init(outer.place)
        spawn(inner.place, ["sleep", "100"], ENVIRONMENT)
        outer.result()
        inner.result()
        inner.keep()
        outer.keep()
        wait_until(lambda: names().count("sleep") == 3, what="two inits and a program")
        outer.place.process.kill()
        return names().count("sleep")

    assert in_namespace(inside) == 0


def names() -> list[str]:
    """Of the processes that live in this pid namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                before, _, fields = (entry / "stat").read_text().rpartition(")")
                if fields.split()[0] != "Z":
                    found.append(before.partition("(")[2])
    return found


def test_an_init_dies_with_its_maker_unless_it_is_kept() -> None:
    def make(writer: int, keep: bool) -> None:
        init = new_init()
        init.result()
        if keep:
            init.keep()
        os.write(writer, f"{init.place.process.pid} {init.place.process.started}".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def made(keep: bool) -> Process:
        reader, writer = os.pipe()
        maker = os.fork()
        if maker == 0:
            make(writer, keep)
        os.waitpid(maker, 0)
        pid, started = os.read(reader, 100).decode().split()
        return Process(int(pid), int(started))

    def inside() -> bool:
        kept, provisional = made(keep=True), made(keep=False)
        wait_until(lambda: not provisional.is_running(), what="the end of the init")
        return kept.is_running()

    assert in_namespace(inside)


def test_an_init_that_cannot_be_prepared_says_why_and_is_gone() -> None:
    def inside() -> None:
        before = names()
        with pytest.raises(LabError, match="no"):
            new_init(prepare=refuse).result()
        wait_until(lambda: names() == before, what="the end of the init")

    in_namespace(inside)


def test_an_init_reaps_whatever_is_left_to_it() -> None:
    def inside() -> list[str]:
        init = new_init()
        init.result()
        init.keep()
        spawn(init.place, ["sh", "-c", "(true &) ; (true &) ; exec sleep 100"], ENVIRONMENT)
        inside_init = init.place.only(Namespace.PID | Namespace.MOUNT)
        wait_until(lambda: names().count("sleep") == 2)
        wait_until(lambda: states(inside_init) == ["S", "S"], what="nobody but the init and the program")
        return states(inside_init)

    assert in_namespace(inside) == ["S", "S"]


def states(place: Place) -> list[str]:
    """Of the processes that the init of `place` has below it, and itself."""
    children = Path(f"/proc/{place.process.pid}/task/{place.process.pid}/children").read_text().split()
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in [place.process.pid, *children]]
    return [text.rpartition(")")[2].split()[0] for text in stats]


@pytest.mark.parametrize(
    ("command", "code"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["no-such-program"], 127), (["/etc/passwd"], 126)],
)
def test_a_program_ends_with_its_own_code(command: list[str], code: int) -> None:
    def inside() -> int:
        pid = execute(new_place(), command, ENVIRONMENT, "/")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_namespace(inside) == code


def test_a_service_that_cannot_start_is_an_error() -> None:
    def inside() -> None:
        with pytest.raises(FileNotFoundError, match="no-such-program"):
            spawn(new_place(), ["no-such-program"], ENVIRONMENT)

    in_namespace(inside)


def test_a_service_writes_to_its_log() -> None:
    def inside() -> str:
        spawn(new_place(), ["sh", "-c", "echo out; echo err >&2"], ENVIRONMENT, log="/run/log")
        wait_until(lambda: Path("/run/log").read_text().count("\n") == 2)
        return Path("/run/log").read_text()

    assert in_namespace(inside) == "out\nerr\n"
