"""Which key exchange an ssh connection that carries no secret begins with: docs/decisions/0008 has the reasons.

The answer is made of what `ssh -G` says of a host, which is the user's own configuration.
"""

from __future__ import annotations

from collections.abc import Iterator

QUICK = "curve25519-sha256"  # RFC 8731

_ALGORITHMS = "kexalgorithms"
# With these, more goes through a connection than what Warren sends: other people's, or the user's own.
_ABSENT = ("localforward", "remoteforward", "dynamicforward", "setenv")
_OFF = ("forwardagent", "forwardx11", "gssapidelegatecredentials", "tunnel")
_SHARED = ("controlpath",)  # others may use the same connection later, for whatever they like
_LOCALE = ("LANG", "LC_")


def quick_exchange(said: str, *, new_connection: bool) -> tuple[str, ...]:
    """Options that put QUICK before the other key exchanges; none where the user does not allow it, or where it is
    not certain that the connection is ours alone. `said`: the words of `ssh -G`."""
    pairs = list(_pairs(said))
    settings = dict(pairs)
    algorithms = settings.get(_ALGORITHMS, "").split(",")
    absent = _ABSENT if new_connection else (*_ABSENT, *_SHARED)
    if (
        QUICK not in algorithms
        or algorithms[0] == QUICK
        or any(name in settings for name in absent)
        or any(settings.get(name, "no") not in ("no", "false") for name in _OFF)
        or any(name == "sendenv" and not value.startswith(_LOCALE) for name, value in pairs)
    ):
        return ()
    others = [each for each in algorithms if each != QUICK]
    return ("-o", f"KexAlgorithms={','.join([QUICK, *others])}")


def _pairs(said: str) -> Iterator[tuple[str, str]]:
    for line in said.splitlines():
        name, _, value = line.partition(" ")
        yield name.lower(), value
