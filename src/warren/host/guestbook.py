"""Who came by invitations to this controller, on its disk: <instance>/guests.json. It has bounds, and no secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from warren.host import files, state
from warren.names import InstanceName, MachineName
from warren.plan.joining import Guestbook, HandIn, Refusal
from warren.wireguard.keys import PublicKey


def read(instance: InstanceName, root: Path = state.ROOT) -> Guestbook:
    """What was kept; nothing where the file is none: it is noted anew then."""
    try:
        return book_of(json.loads(files.read(_path(instance, root)) or b"{}"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return Guestbook()


def write(instance: InstanceName, book: Guestbook, root: Path = state.ROOT) -> None:
    with files.edit(_path(instance, root)) as file:
        if book == Guestbook():
            file.remove()
        else:
            file.replace(json.dumps(tree(book), indent=1).encode() + b"\n", mode=0o600)


def tree(book: Guestbook) -> dict[str, list[dict[str, object]]]:
    return {
        "hand_ins": [
            {
                "invitation": each.invitation.text,
                "machine": each.machine,
                "public_key": each.public_key.text,
                "from": each.came_from,
                "unix_s": round(each.unix_s, 3),
            }
            for each in book.hand_ins
        ],
        "refusals": [
            {
                "invitation": each.invitation.text,
                "machine": each.machine,
                "reason": each.reason,
                "asked": each.asked,
                "from": each.came_from,
                "unix_s": round(each.unix_s, 3),
                "times": each.times,
            }
            for each in book.refusals
        ],
    }


def book_of(found: Any) -> Guestbook:
    """Back from its tree; ValueError, LookupError, TypeError or AttributeError where it is none."""
    return Guestbook(
        tuple(
            HandIn(
                PublicKey.parse(each["invitation"]),
                MachineName(each["machine"]),
                PublicKey.parse(each["public_key"]),
                str(each["from"]),
                float(each["unix_s"]),
            )
            for each in found.get("hand_ins", ())
        ),
        tuple(
            Refusal(
                PublicKey.parse(each["invitation"]),
                MachineName(each["machine"]),
                str(each["reason"]),
                str(each["asked"]),
                str(each["from"]),
                float(each["unix_s"]),
                int(each["times"]),
            )
            for each in found.get("refusals", ())
        ),
    )


def _path(instance: InstanceName, root: Path) -> Path:
    return state.instance_folder(instance, root) / state.GUESTS_FILE
