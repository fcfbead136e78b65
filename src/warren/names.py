"""Names: of machines, instances, interfaces. Distinct types, and the one place that says what a valid one is."""

import re
from typing import NewType

MachineName = NewType("MachineName", str)
InstanceName = NewType("InstanceName", str)
InterfaceName = NewType("InterfaceName", str)

HOST_NAME_RULE = "letters, digits, '-' and '_', at most 63 characters, not starting or ending with '-'"
HOST_NAME_PATTERN = r"^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$"
_HOST_NAME = re.compile(HOST_NAME_PATTERN)
INTERFACE_NAME_BYTES = 15  # IFNAMSIZ less the closing NUL, linux/if.h


def is_host_name(text: str) -> bool:
    """Whether `text` is one label of a host name: see HOST_NAME_RULE."""
    return _HOST_NAME.fullmatch(text) is not None


def is_domain(text: str) -> bool:
    """Whether `text` is dot-separated host names, 253 characters at most (RFC 1035, section 2.3.4)."""
    return len(text) <= 253 and all(is_host_name(label) for label in text.split("."))


def interface_name_problem(text: str) -> str | None:
    """Why Linux refuses `text` as the name of an interface, or None (dev_valid_name, net/core/dev.c).

    A percent sign makes it a template for numbered names (dev_alloc_name).
    """
    size = len(text.encode())
    if size > INTERFACE_NAME_BYTES:
        return f"{size} bytes long, Linux allows {INTERFACE_NAME_BYTES}"
    if text in ("", ".", ".."):
        return "not a name"
    for character in text:
        if character in "/:%" or character.isspace() or ord(character) < 32:
            return f"contains {character!r}"
    if text in ("all", "default", "lo"):
        return "reserved by Linux"
    return None
