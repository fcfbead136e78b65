"""Notice WireGuard handshakes on this machine as their messages come in, on whatever link.

What they say only the device can tell. That one came in is enough to look there; the first of a handshake comes a round
trip before the session carries packets.
"""

from __future__ import annotations

from types import TracebackType

from warren.host.packets import (
    ANY_BIT,
    EQUAL,
    ETH_P_IP,
    ETH_P_IPV6,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_HEADER_LENGTH,
    LOAD_WORD,
    LOAD_WORD_X,
    RETURN,
    listening,
)

_COMMAND = "tcpdump 'udp[8:4] = 0x01000000'"  # the command form, for errors
_UDP = 17
_INITIATION, _RESPONSE = 0x01000000, 0x02000000  # whitepaper, section 5.4: a type, three bytes of zero

_IPV4 = (
    (LOAD_BYTE, 0, 0, 9),
    (EQUAL, 0, 7, _UDP),
    (LOAD_HALF, 0, 0, 6),
    (ANY_BIT, 5, 0, 0x1FFF),  # a later fragment
    (LOAD_HEADER_LENGTH, 0, 0, 0),
    (LOAD_WORD_X, 0, 0, 8),
    (EQUAL, 1, 0, _INITIATION),
    (EQUAL, 0, 1, _RESPONSE),
    (RETURN, 0, 0, 1),
    (RETURN, 0, 0, 0),
)
_IPV6 = (
    (LOAD_BYTE, 0, 0, 6),
    (EQUAL, 0, 4, _UDP),
    (LOAD_WORD, 0, 0, 48),
    (EQUAL, 1, 0, _INITIATION),
    (EQUAL, 0, 1, _RESPONSE),
    (RETURN, 0, 0, 1),
    (RETURN, 0, 0, 0),
)


class Handshakes:
    """Sockets that are readable when a message of a handshake came in; a context manager."""

    def __init__(self) -> None:
        self.sockets = [listening(ETH_P_IP, _IPV4, _COMMAND), listening(ETH_P_IPV6, _IPV6, _COMMAND)]

    def drain(self) -> bool:
        """Forget those that came so far; whether there were any."""
        found = False
        for each in self.sockets:
            while True:
                try:
                    each.recv(1)
                    found = True
                except BlockingIOError:
                    break
                except OSError:  # a link that it heard is gone: it hears the others
                    continue
        return found

    def close(self) -> None:
        for each in self.sockets:
            each.close()

    def __enter__(self) -> Handshakes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
