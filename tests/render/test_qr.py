"""The QR code, read back by a program that knows nothing of Warren: the configuration comes out, byte for byte."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from render.foreign_fleet import VPN, Fleet, fleet, private_key
from warren.errors import UsageError
from warren.render import qr
from warren.render.wg_quick import app_text

needs_zbar = pytest.mark.skipif(shutil.which("zbarimg") is None, reason="zbarimg is not installed (Debian: zbar-tools)")

LAPTOP1 = "laptop1"


def read_back(image: Path) -> bytes:
    """What the code in the picture says. --raw ends it with a newline of its own."""
    command = ("zbarimg", "--quiet", "--raw", "--nodbus", "-Sdisable", "-Sqrcode.enable", str(image))
    return subprocess.run(command, check=True, capture_output=True).stdout.removesuffix(b"\n")


def drawn(dark: list[list[bool]], folder: Path) -> Path:
    """The modules as a picture; each three pixels wide, with light around."""
    size = len(dark[0]) + 8
    rows = [[False] * size] * 4 + [[False] * 4 + row + [False] * 4 for row in dark] + [[False] * size] * 4
    pixels = b"".join(bytes(0 if each else 255 for each in row for _ in range(3)) * 3 for row in rows)
    image = folder / "drawn.pgm"
    image.write_bytes(b"P5 %d %d 255\n" % (3 * size, 3 * len(rows)) + pixels)
    return image


def code_file(operator: Fleet, name: str, machine: str = LAPTOP1) -> Path:
    target = operator.folder / name
    secret = private_key(machine).reveal_text()
    out = operator.render(machine, "qr", "--private-key-file", "-", "--output", str(target), stdin=secret)
    assert out == ""
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    return target


def expected(operator: Fleet, machine: str = LAPTOP1) -> bytes:
    text = app_text(operator.desired(machine), private_key(machine))
    assert private_key(machine).reveal_text() in text
    return text.encode()


@needs_zbar
@pytest.mark.parametrize("machine", [LAPTOP1, "laptop2", "server1"])
def test_the_picture_says_the_configuration(tmp_path: Path, machine: str) -> None:
    operator = fleet(tmp_path)
    assert read_back(code_file(operator, "code.png", machine)) == expected(operator, machine)


@needs_zbar
def test_the_terminal_says_it_too(tmp_path: Path) -> None:
    """White on black: a block is a light module, two of them to a character."""
    operator = fleet(tmp_path)
    secret = private_key(LAPTOP1).reveal_text()
    text = operator.render(LAPTOP1, "qr", "--private-key-file", "-", stdin=secret)
    assert "\x1b" not in text  # in a pipe
    dark = []
    for line in text.splitlines():
        dark.append([character in " ▄" for character in line])
        dark.append([character in " ▀" for character in line])
    assert read_back(drawn(dark, tmp_path)) == expected(operator)
    colored = qr.terminal(operator.desired(LAPTOP1), private_key(LAPTOP1)).splitlines()
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in colored] == text.splitlines()
    assert all(line.startswith("\x1b[97;40m") and line.endswith("\x1b[0m") for line in colored)


@needs_zbar
def test_the_drawing_says_it_too(tmp_path: Path) -> None:
    operator = fleet(tmp_path)
    svg = code_file(operator, "code.svg").read_text()
    modules = [int(number) // qr.PIXELS for number in re.findall(r'(?:width|height)="(\d+)"', svg)[:2]]
    dark = [[False] * modules[0] for _ in range(modules[1])]
    (path,) = re.findall(r'<path class="qrline" stroke="#000" d="([^"]*)"', svg)
    x, y = 0.0, 0.0
    for command, numbers in re.findall(r"([Mmh])([^Mmh]*)", path):
        values = [float(each) for each in re.findall(r"-?[0-9.]+", numbers)]
        if command == "h":
            for column in range(int(x), int(x + values[0])):
                dark[int(y)][column] = True
            x += values[0]
        else:
            x, y = (values[0], values[1]) if command == "M" else (x + values[0], y + values[1])
    assert read_back(drawn(dark, tmp_path)) == expected(operator)


def test_a_configuration_for_apps_that_read_files(tmp_path: Path) -> None:
    operator = fleet(tmp_path)
    assert code_file(operator, "phone.conf").read_bytes() == expected(operator)


def test_apps_find_nothing_that_they_do_not_know(tmp_path: Path) -> None:
    """What WireGuard's apps for Android and iOS know, less what nobody needs here; they refuse a file with more."""
    known = {"PrivateKey", "Address", "MTU", "ListenPort", "PublicKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"}
    for machine in ("server1", LAPTOP1):
        lines = expected(fleet(tmp_path / machine), machine).decode().splitlines()
        assert {line.partition(" = ")[0] for line in lines if line and not line.startswith("[")} <= known


def test_what_is_too_long_for_a_code_is_said(tmp_path: Path) -> None:
    inventory = (
        "[instances.vpn]\nmodule.name = 'wireguard'\nroles.peer.machines.laptop1.settings.controller = 'server0'\n"
    )
    inventory += "".join(
        f"roles.controller.machines.server{i}.settings.endpoint = 'vpn{i}.example.com'\n" for i in range(20)
    )
    operator = fleet(tmp_path, inventory)
    with pytest.raises(UsageError, match=r"20 WireGuard peers make 4,[0-9]{3} bytes, a QR code holds 2,953") as error:
        qr.terminal(operator.desired(LAPTOP1), private_key(LAPTOP1))
    assert f"--instance {VPN} --format wg-quick" in str(error.value)


def test_the_largest_code_still_fits(tmp_path: Path) -> None:
    """The bound is the standard's: what is just below it is made."""
    import segno

    segno.make_qr("x" * qr.MOST_BYTES, error="l")
    with pytest.raises(segno.DataOverflowError):
        segno.make_qr("x" * (qr.MOST_BYTES + 1), error="l")
