"""What ssh says when it fails, as the hop where it failed, what is wrong there, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    hop: str  # whom ssh did not come to
    what: str
    mend: str


# What ssh writes -> what is wrong, how to mend it. The first that is found counts: the last lines of a failure
# ("Connection closed by UNKNOWN port 65535") say less than those before them.
_KNOWN = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known here: another machine answers, or it was installed anew",
        "if you know why the key changed, forget the old one: ssh-keygen -R {name}; then {by_hand}",
    ),
    (
        "Host key verification failed",
        "its host key is not known here",
        "connect once by hand and compare the key that is shown: {by_hand}",
    ),
    (
        "Permission denied (",
        "it accepts none of your keys",
        "bring your key there (ssh-copy-id {host}), or load it (ssh-add); by hand: {by_hand}",
    ),
    (
        "Too many authentication failures",
        "it refused after too many of your keys",
        "name the right one with IdentityFile and IdentitiesOnly in ~/.ssh/config; by hand: {by_hand}",
    ),
    (
        "Could not resolve hostname",
        "there is no such host name",
        "set machines.NAME.deploy.host, or the name in DNS, /etc/hosts or ~/.ssh/config; by hand: {by_hand}",
    ),
    ("name resolution", "the jump host does not know its name", "set deploy.host to one that it knows"),
    ("Name or service not known", "the jump host does not know its name", "set deploy.host to one that it knows"),
    (
        "Connection refused",
        "nothing listens for ssh there",
        "start sshd on it, or set machines.NAME.deploy.port; by hand: {by_hand}",
    ),
    ("No route to host", "there is no route to it", "is it running? a host that reaches it can be deploy.via"),
    (
        "Network is unreachable",
        "its network is not reached from here",
        "is it running? a host that reaches it can be deploy.via",
    ),
    ("timed out", "it does not answer", "is it running? by hand: {by_hand}"),
    ("Timeout, server", "it stopped answering", "is it still running? by hand: {by_hand}"),
    (
        "administratively prohibited",
        "the jump host forwards no connections",
        "AllowTcpForwarding yes in its sshd_config, or another jump host in deploy.via",
    ),
    ("Connection reset by", "it closed the connection", "look at its log: journalctl -u ssh; by hand: {by_hand}"),
    (
        "Connection closed by",
        "it closed the connection",
        "look at its log (journalctl -u ssh): too many at once (MaxStartups)? fewer: --parallel 4",
    ),
)
_PROXY_ENDED = "UNKNOWN port"  # ssh's other end is a process: the way to the jump host, or from there on
_JUMP_WENT_ON = ("stdio forwarding failed", "open failed:")


def explain(said: str, host: str, via: str, by_hand: str) -> Problem:
    """`said`: ssh's stderr."""
    at_jump_host = bool(via) and _PROXY_ENDED in said and not any(words in said for words in _JUMP_WENT_ON)
    name = _name(via.split(",")[-1] if at_jump_host else host)
    hop = f"jump host {name}" if at_jump_host else f"{name} from {_name(via)}" if via else name
    command = f"ssh {via}" if at_jump_host else by_hand
    for words, what, mend in _KNOWN:
        if words in said:
            target = via if at_jump_host else host
            return Problem(hop, what, mend.format(name=name, host=target, by_hand=command))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return Problem(hop, f"ssh says: {lines[-1]}" if lines else "ssh ended without a word", f"by hand: {command}")


def _name(host: str) -> str:
    return host.removeprefix("ssh://").rpartition("@")[2]
