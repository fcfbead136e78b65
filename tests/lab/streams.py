"""Open connections on a lab's machines, and what their agents say meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.labs import WARREN, Computer
from namespaces import wait_until

# A move is a matter of a second; without one, a stream through the lost controller would be silent until it is back.
# Generous, since these machines are shared.
SILENCE_S = 20.0
SOON_S = 60.0
LISTENING = f":1B58 {'0' * 32}:0000 0A"  # the server's port; connections of a server before may still be listed with it
TRAFFIC = str(Path(__file__).parents[2] / "bench" / "traffic.py")


class Stream:
    """From one machine to another's name: a TCP stream and a train of datagrams, since it was made."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.begin()

    def begin(self) -> None:
        """What was before is not asked for any more."""
        self._began_s = time.monotonic()

    def so_far(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._began_s} {time.monotonic()}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def goes_on(self) -> bool:
        """Nothing is under way for long: the other end hears what is sent."""
        found = self.so_far()
        return not found["broken"] and found["stream_behind"] < 100

    def check(self, longest_silence_s: float = SILENCE_S) -> None:
        wait_until(self.goes_on, SOON_S, "what was sent, at the other end")
        found = self.so_far()
        assert (found["broken"], found["bytes_wrong"]) == ("", 0)
        assert found["stream_silence_s"] < longest_silence_s


@contextmanager
def stream(on: Computer, source: str, target: str) -> Iterator[Stream]:
    with server(on, target), sender(on, source, target) as made:
        yield made


@contextmanager
def server(on: Computer, machine: str) -> Iterator[None]:
    """What streams to this machine need there."""
    with _inside(on, machine, "serve"):
        wait_until(lambda: LISTENING in on.on(machine, "cat", "/proc/net/tcp6"), SOON_S, "the server")
        yield


@contextmanager
def sender(on: Computer, source: str, target: str, interval_s: float = 0.005) -> Iterator[Stream]:
    with _inside(on, source, "send", f"{target}.vpn", str(interval_s)) as process:
        made = Stream(process)
        wait_until(lambda: made.so_far()["first_train_s"] is not None, SOON_S, "the first answer")
        made.begin()
        yield made


@contextmanager
def _inside(on: Computer, machine: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [*WARREN, "lab", "exec", machine, "--name", "demo", "--", sys.executable, TRAFFIC, *words]
    enter = ["nsenter", "--target", str(on.namespace.pid), "--net", "--mount", "--pid", "--"]
    process = subprocess.Popen([*enter, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()  # both ends go by themselves then
        process.wait(SOON_S)


def agent(on: Computer, machine: str) -> dict[str, Any]:
    """What its agent says of controllers."""
    tree = json.loads(on.on(machine, "warren", "status", "--json"))
    found: dict[str, Any] = tree["instances"]["vpn"]["agent"] or {}
    return found


def await_carrier(on: Computer, machine: str, carrier: str) -> None:
    """Of server1's subnet; all the rest of the machine follows."""
    wait_until(
        lambda: agent(on, machine).get("carriers", {}).get("server1") == carrier, SOON_S, f"{carrier} on {machine}"
    )
    wait_until(lambda: "as the document says" in on.on(machine, "warren", "status"), SOON_S, "the rest")
