"""A controller in somebody else's hands: says that it follows something very new, and answers what it was given.

python3 evil_controller.py ADDRESS ANSWER     inside the tunnel; ANSWER is a file
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

PORT = 51819
FOLLOWS = b'{"warren":1,"follows":900000000000000}'


def answer_all(listening: socket.socket, answer: bytes) -> None:
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)


def main() -> None:
    address, file = sys.argv[1:]
    listening = socket.create_server((address, PORT), family=socket.AF_INET6)
    threading.Thread(target=answer_all, args=(listening, Path(file).read_bytes()), daemon=True).start()
    words = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    words.bind((address, PORT))
    Path("/run/evil.pid").write_text(str(os.getpid()))
    while True:
        _, source = words.recvfrom(2000)
        words.sendto(FOLLOWS, source)


if __name__ == "__main__":
    main()
