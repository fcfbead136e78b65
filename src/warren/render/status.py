"""What WireGuard says on one machine, by the names of machines: as a tree for programs, as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from warren.names import MachineName
from warren.plan import rotation
from warren.plan.desired import Desired, Observed
from warren.render.columns import columns
from warren.wireguard.device import REJECT_AFTER_TIME_S, ObservedPeer
from warren.wireguard.keys import PublicKey


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance on this machine: as it should be, as it is, and how many steps lie between."""

    desired: Desired
    observed: Observed
    steps_pending: int
    notes: tuple[str, ...] = ()  # what the operator has to do here by hand
    fetching: tuple[str, ...] = ()  # what failed when this machine fetched documents by itself
    agent: Mapping[str, Any] | None = None  # what the running agent says of controllers; None: it says nothing


_MOST_EVENTS = 5


def status_tree(statuses: Iterable[InstanceStatus]) -> dict[str, object]:
    """What `warren status --json` prints; programs rely on its shape."""
    return {"instances": {status.desired.instance: _instance(status) for status in statuses}}


def status_text(statuses: Iterable[InstanceStatus]) -> str:
    return "\n".join(_instance_text(status) for status in statuses)


def _instance(status: InstanceStatus) -> dict[str, object]:
    desired, observed = status.desired, status.observed
    held = observed.device.peers if observed.device else {}
    return {
        "machine": desired.machine,
        "interface": desired.interface,
        "up": observed.link is not None and observed.device is not None and observed.link.is_up,
        "steps_pending": status.steps_pending,
        "notes": list(status.notes),
        "fetching": list(status.fetching),
        "agent": status.agent,
        "expiring": list(status.desired.expiring),
        "machines": {
            name: _peer(held[key], observed.unix_s) if key in held else {"configured": False}
            for key, name in _in_use(desired, observed).items()
        },
    }


def _in_use(desired: Desired, observed: Observed) -> dict[PublicKey, MachineName]:
    """The key of each machine; of two, while one is rotated, the one that speaks."""
    device = observed.device
    speaking = rotation.peers_now(desired, device, observed.unix_s) if device else desired.peers
    silent = {second if speaking[first].allowed_ips else first for first, second in desired.second_keys.items()}
    return {key: name for key, name in desired.peer_names.items() if key not in silent | desired.invited}


def _peer(peer: ObservedPeer, now_unix_s: float) -> dict[str, object]:
    return {
        "configured": True,
        "endpoint": str(peer.endpoint) if peer.endpoint else None,
        "handshake_unix_s": peer.handshake_unix_s or None,
        "has_session": _has_session(peer, now_unix_s),
        "received_bytes": peer.received_bytes,
        "sent_bytes": peer.sent_bytes,
    }


def _has_session(peer: ObservedPeer, now_unix_s: float) -> bool:
    """Whether a session may still carry packets; WireGuard itself forgets one after this time."""
    return now_unix_s - peer.handshake_unix_s < REJECT_AFTER_TIME_S


def _instance_text(status: InstanceStatus) -> str:
    desired, observed = status.desired, status.observed
    state = "as the document says" if not status.steps_pending else f"{status.steps_pending} steps pending"
    if observed.link is None or observed.device is None:
        return f"{desired.instance}: not up on {desired.machine} (warren apply)\n"
    rows = [("machine", "endpoint", "handshake", "received", "sent")]
    for key, name in sorted(_in_use(desired, observed).items(), key=lambda each: each[1]):
        peer = observed.device.peers.get(key)
        rows.append((name, *_cells(peer, observed.unix_s)) if peer else (name, "-", "not configured", "-", "-"))
    notes = "".join(f"to be done by hand: {note}\n" for note in status.notes)
    notes += "".join(f"{line}\n" for line in (*desired.expiring, *status.fetching))
    head = f"{desired.instance} on {desired.machine}, interface {desired.interface}: {state}\n{notes}"
    return f"{head}{columns(rows)}{_agent_text(status)}"


def _agent_text(status: InstanceStatus) -> str:
    """What is not as usual with controllers, and what happened last."""
    said = status.agent or {}
    lines = []
    for name, found in said.get("health", {}).items():
        if found["verdict"] != "up":
            state = "is silent" if found["verdict"] == "silent" else found["verdict"]
            lines.append(f"{name} {state}, for {duration(found['for_s'])}")
    lines += [
        f"{owner}'s subnet is carried by {name}" for owner, name in said.get("carriers", {}).items() if owner != name
    ]
    for name, lost in said.get("lost_by_others", {}).items():
        lines.append(f"{name} cannot use {', '.join(lost)}, and is reached without")
    if said.get("draining"):
        lines.append("drained: peers are asked not to use this controller")
    if last := said.get("events", ())[-_MOST_EVENTS:]:
        lines.append("last events:")
        now_s = status.observed.unix_s
        for each in last:
            cause = f": {each['cause']}" if each["cause"] else ""
            lines.append(f"  {duration(now_s - each['unix_s'])} ago  {each['machine']} {each['text']}{cause}")
    return "".join(f"{line}\n" for line in lines)


def _cells(peer: ObservedPeer, now_unix_s: float) -> tuple[str, str, str, str]:
    age_s = now_unix_s - peer.handshake_unix_s
    handshake = f"{duration(age_s)} ago" if peer.handshake_unix_s else "never"
    return (
        str(peer.endpoint or "-"),
        handshake if _has_session(peer, now_unix_s) or not peer.handshake_unix_s else f"{handshake}, no session",
        size(peer.received_bytes),
        size(peer.sent_bytes),
    )


def duration(seconds: float) -> str:
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
