"""The names of a mesh as the marked block of a hosts file."""

from __future__ import annotations

from warren.plan import hosts
from warren.plan.desired import Desired
from warren.render.foreign import File


def hosts_text(desired: Desired) -> tuple[File, ...]:
    """One file that holds nothing but the block, as a managed machine has it in the middle of its own."""
    return (File(hosts.FILE, hosts.with_block(b"", desired.instance, desired.hosts).decode()),)
