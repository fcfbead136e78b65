"""What endpoints stand for now: host names to addresses, of both families, in bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from queue import Empty, SimpleQueue

from warren.wireguard.endpoint import Endpoint, SocketAddress

TIMEOUT_S = 5.0  # the resolver's own first timeout (resolv.conf(5))

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Resolution:
    """The addresses in the order in which to try them (RFC 6724); none, and then `problem` says why."""

    addresses: tuple[SocketAddress, ...] = ()
    problem: str = ""


def resolve(endpoints: Iterable[Endpoint], timeout_s: float = TIMEOUT_S) -> dict[Endpoint, Resolution]:
    """Look all of them up at once; nobody waits longer than `timeout_s`, however dead DNS is.

    A lookup cannot be stopped. One that is too late goes on in a thread of its own until the resolver gives up.
    """
    results: dict[Endpoint, Resolution] = {}
    answers: SimpleQueue[tuple[Endpoint, Resolution]] = SimpleQueue()
    waiting = set()
    for endpoint in endpoints:
        if endpoint.address is not None:
            results[endpoint] = Resolution((SocketAddress(endpoint.address, endpoint.port),))
        elif endpoint not in waiting:
            waiting.add(endpoint)
            threading.Thread(
                target=lambda each: answers.put((each, _look_up(each))), args=(endpoint,), daemon=True
            ).start()
    deadline = time.monotonic() + timeout_s
    while waiting:
        try:
            endpoint, resolution = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        waiting.remove(endpoint)
        results[endpoint] = resolution
    late = Resolution(problem=f"no answer from the resolver in {timeout_s:g} s")
    return results | dict.fromkeys(waiting, late)


def _look_up(endpoint: Endpoint) -> Resolution:
    try:
        # Bytes, so that Python does not apply its own idea of international names; all families that there are.
        found = socket.getaddrinfo(endpoint.host.encode(), endpoint.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        return Resolution(problem=f"{endpoint.host}: {error.strerror}")
    candidates = [
        ip_address(place[0]) for family, *_, place in found if family in _FAMILIES and isinstance(place[0], str)
    ]
    # fe80::… means another machine on every link.
    usable = [each for each in candidates if each.version == 4 or not each.is_link_local]
    addresses = tuple(dict.fromkeys(SocketAddress(each, endpoint.port) for each in usable))
    return Resolution(addresses, "" if addresses else f"{endpoint.host}: no usable address")
