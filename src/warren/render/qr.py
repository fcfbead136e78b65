"""A plan as a QR code, for WireGuard's apps on phones to scan."""

from __future__ import annotations

from io import BytesIO, StringIO

import segno

from warren.errors import UsageError
from warren.plan.desired import Desired
from warren.render.wg_quick import app_text
from warren.wireguard.keys import PrivateKey

MOST_BYTES = 2953  # ISO/IEC 18004, version 40-L in byte mode
PICTURES = ("png", "svg")
_WHITE_ON_BLACK, _RESET = "\x1b[97;40m", "\x1b[0m"
PIXELS = 6  # of one module's side: a screenshot or a print of it is still read


def terminal(desired: Desired, private_key: PrivateKey) -> str:
    """Half a line of text for each row of the code; in a terminal, white on black whatever its own colors are."""
    return _for_terminal(_code(desired, private_key))


def _for_terminal(code: segno.QRCode) -> str:
    out = StringIO()
    code.terminal(out, compact=True)
    return "".join(f"{_WHITE_ON_BLACK}{line}{_RESET}\n" for line in out.getvalue().splitlines())


def picture(desired: Desired, private_key: PrivateKey, kind: str) -> bytes:
    """`kind` is one of PICTURES."""
    out = BytesIO()
    _code(desired, private_key).save(out, kind=kind, scale=PIXELS, light="white")
    return out.getvalue()


def text_code(text: str) -> str:
    """Any short text, for a terminal."""
    return _for_terminal(segno.make_qr(text, error="l"))


def _code(desired: Desired, private_key: PrivateKey) -> segno.QRCode:
    text = app_text(desired, private_key)
    if len(text) > MOST_BYTES:
        raise UsageError(
            f"{len(desired.peers)} WireGuard peers make {len(text):,} bytes, a QR code holds {MOST_BYTES:,}",
            mend=f"warren render {desired.machine} --instance {desired.instance} --format wg-quick",
        )
    return segno.make_qr(text, error="l", encoding="ascii")
