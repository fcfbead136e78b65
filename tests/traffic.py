"""A ping train and an open TCP stream from this machine to each of the others, for as long as it is let run.

    python3 traffic.py RESULT OWN,OWN… NAME=ADDRESS…      until SIGTERM; then RESULT holds, by name
    {"udp": {"sent", "lost", "longest_silence_s"}, "tcp": {"echoed", "longest_silence_s", "error": text or null}}

Every machine of a measurement runs it, for each answers the others: UDP by datagram, TCP as one stream that is never
opened a second time. It goes on answering until it is killed, for others measure a little longer. Standard library
only, for it runs on machines that have nothing else.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from pathlib import Path

PORT = 7007
EVERY_S = 0.02
FIRST_ANSWER_S = 60.0
LAST_ANSWERS_S = 1.0

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Silence:
    """The longest time without an answer, since the first one."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_s = 0.0
        self._last_s = 0.0

    def answered(self) -> None:
        now_s = time.monotonic()
        self.until(now_s)
        self.count += 1
        self._last_s = now_s

    def until(self, now_s: float) -> None:
        if self.count:
            self.longest_s = max(self.longest_s, now_s - self._last_s)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: object) -> None:
        self.transport.sendto(data, address)  # type: ignore[attr-defined]


class Train(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.silence = Silence()

    def datagram_received(self, _: bytes, __: object) -> None:
        self.silence.answered()

    def error_received(self, error: Exception) -> None:
        """A packet that could not be sent is lost as any other is."""


async def ping(address: str, stop: asyncio.Event) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    transport, train = await loop.create_datagram_endpoint(Train, remote_addr=(address, PORT))
    sent = 0
    while not stop.is_set():
        transport.sendto(b"%d" % sent)
        sent += 1
        await asyncio.sleep(EVERY_S)
    ended_s = time.monotonic()
    await asyncio.sleep(LAST_ANSWERS_S)
    train.silence.until(ended_s)
    transport.close()
    return {"sent": sent, "lost": sent - train.silence.count, "longest_silence_s": train.silence.longest_s}


async def connected(address: str) -> Stream:
    """A stream to a machine that may not listen yet."""
    deadline_s = time.monotonic() + FIRST_ANSWER_S
    while True:
        try:
            return await asyncio.open_connection(address, PORT)
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(EVERY_S)


async def stream(opened: Stream, stop: asyncio.Event) -> dict[str, object]:
    silence, error = Silence(), None
    reader, writer = opened
    listening = asyncio.create_task(hear(reader, silence))
    number = 0
    try:
        while not stop.is_set() and not listening.done():
            writer.write(b"%d\n" % number)
            number += 1
            await asyncio.sleep(EVERY_S)
        ended_s = time.monotonic()
        await asyncio.sleep(LAST_ANSWERS_S)
        if listening.done():
            await listening
        silence.until(ended_s)
    except (OSError, ValueError) as failure:
        error = repr(failure)
    return {"echoed": silence.count, "longest_silence_s": silence.longest_s, "error": error}


async def hear(reader: asyncio.StreamReader, silence: Silence) -> None:
    number = 0
    while line := await reader.readline():
        if int(line) != number:
            raise ValueError(f"{line!r} came in place of {number}")
        number += 1
        silence.answered()
    raise ValueError("the other side closed the stream")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
    except OSError:
        pass
    finally:
        writer.close()


async def main(result: Path, own: list[str], targets: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for each in own:  # one socket each, so that the answer comes from the address that was asked
        await loop.create_datagram_endpoint(Echo, local_addr=(each, PORT))
    server = await asyncio.start_server(answer, "::", PORT)
    names = list(targets)
    opened = [await connected(targets[name]) for name in names]
    result.with_suffix(".running").touch()
    pings = asyncio.gather(*(ping(targets[name], stop) for name in names))
    streams = asyncio.gather(*(stream(each, stop) for each in opened))
    found = {name: {"udp": udp, "tcp": tcp} for name, udp, tcp in zip(names, await pings, await streams, strict=True)}
    result.with_suffix(".part").write_text(json.dumps(found))
    result.with_suffix(".part").rename(result)
    await server.serve_forever()


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2].split(","), dict(word.split("=", 1) for word in sys.argv[3:])))
