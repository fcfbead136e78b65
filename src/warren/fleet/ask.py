"""Runs on a machine where an update is received or confirmed: has the running agent do it, which is awake already.

Like bootstrap.py it is a program of its own and imports next to nothing, for the start of an interpreter with all of
Warren costs more than the work. Where no agent runs, or not one of the Warren that is installed, or it is busy, Warren
is started after all. warren.agent.requests has the other side, and says what passes between both.
"""

# What is built in: an import from a file takes a millisecond.
import _socket
import posix
import sys

BUNDLE = "/usr/local/lib/warren/warren.pyz"
PATH = "/run/warren/requests.sock"
BUSY_S = 2.0
DIED = 70  # EX_SOFTWARE, sysexits.h


def main() -> int:
    words = sys.argv[1:]
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        is_ready = _is_ready(connection, words)
    except OSError:
        is_ready = False
    if not is_ready:
        connection.close()  # who was only slow to answer sees that nobody waits
        posix.execv(sys.executable, [sys.executable, "-I", BUNDLE, *words])
    connection.settimeout(None)
    answer = connection.recv(1)
    if not answer:
        sys.stderr.write("the process that did this for the agent died; what it changed is taken back\n")
    return answer[0] if answer else DIED


def _is_ready(connection: _socket.socket, words: list[str]) -> bool:
    """Whether somebody took it on; from then on nobody else may."""
    status = posix.stat(BUNDLE)
    stamp = f"{status.st_dev}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"
    connection.settimeout(BUSY_S)
    connection.connect(PATH)
    connection.send("\0".join([stamp, *words]).encode("utf-8", "surrogateescape"))
    if connection.recv(16) != b"ready":
        return False
    own = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    connection.sendmsg([b"go"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, own)])
    return True


if __name__ == "__main__":
    sys.exit(main())
