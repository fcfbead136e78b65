"""Runs as root on a machine, given to its Python as text by bootstrap.sh: puts Warren's files there, all or none.

The only module that is not imported: it comes before the others, so that the standard library is all that it has.
stdin: {"machine": NAME, "bundle": base64, "ask": text, "allowed_signers": text, "unit": text}. stdout: one object of
JSON, what is there now, or {"problem": …, "found": …} with exit code 4.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import marshal
import os
import shlex
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

BUNDLE = Path("/usr/local/lib/warren/warren.pyz")
ASK = Path("/usr/local/lib/warren/ask.py")
PROGRAM = Path("/usr/local/bin/warren")
SIGNERS = Path("/etc/warren/allowed_signers")
NAME = Path("/var/lib/warren/machine.name")
UNIT = Path("/etc/systemd/system/warren.service")

_PROGRAM = """\
#!/bin/sh
case "$1 $2" in
"machine receive" | "machine confirm") exec {python} -I -S {ask} "$@" ;;
esac
exec {python} -I {bundle} "$@"
"""


def main() -> int:
    request = json.load(sys.stdin)
    try:
        answer = install(request)
    except OSError as error:
        answer = problem("files", f"{error.filename2 or error.filename or ''}: {error.strerror}")
    print(json.dumps(answer))
    return 4 if "problem" in answer else 0


def problem(kind: str, found: str) -> dict[str, Any]:
    return {"problem": kind, "found": found}


def install(request: dict[str, Any]) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        name = NAME.read_text().strip()
        if name != request["machine"]:
            return problem("other-machine", name)
    # What systemd's own documentation says to look at: sd_booted(3).
    has_systemd = Path("/run/systemd/system").is_dir()
    write_all(files(request, has_systemd))
    if has_systemd and (words := start_service()):
        return problem("service", words)
    return {
        "python": sys.executable,
        "wireguard": sys.argv[1] or "userspace",
        "service": has_systemd,
    }


def files(request: dict[str, Any], has_systemd: bool) -> dict[Path, tuple[bytes, int]]:
    """Content and mode by path."""
    # Not the archive itself: the interpreter that was found fit need not be the first python3 on PATH.
    program = _PROGRAM.format(python=shlex.quote(sys.executable), ask=ASK, bundle=BUNDLE)
    found = {
        BUNDLE: (compiled(base64.b64decode(request["bundle"])), 0o755),
        ASK: (request["ask"].encode(), 0o644),
        PROGRAM: (program.encode(), 0o755),
        SIGNERS: (request["allowed_signers"].encode(), 0o644),
        NAME: (f"{request['machine']}\n".encode(), 0o644),
    }
    if has_systemd:
        found[UNIT] = (request["unit"].encode(), 0o644)
    return found


def compiled(bundle: bytes) -> bytes:
    """The archive, with what this machine's Python makes of each module beside it: it starts in half the time.

    A newer Python passes that over, and takes the source. Unchecked: nothing changes within the archive.
    """
    unchecked = (1).to_bytes(4, "little")  # PEP 552
    buffer = io.BytesIO(bundle)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in [each for each in archive.namelist() if each.endswith(".py")]:
            source = archive.read(name)
            code = compile(source, f"{BUNDLE}/{name}", "exec", dont_inherit=True)
            head = importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(source)
            archive.writestr(f"{name}c", head + marshal.dumps(code))
    return buffer.getvalue()


def write_all(contents: dict[Path, tuple[bytes, int]]) -> None:
    """Bring all to the disk under other names, then rename; after an error nothing of it is there."""
    made: list[Path] = []  # folders and files that were not there before
    try:
        for path, (content, mode) in contents.items():
            make_folder(path.parent, made)
            write_beside(path, content, mode)
        for path in contents:
            if not path.exists():
                made.append(path)
            beside(path).replace(path)
        for folder in {path.parent for path in contents}:
            sync(folder)
    except BaseException:
        for path in contents:
            with suppress(OSError):
                beside(path).unlink()
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.warren-new")


def make_folder(path: Path, made: list[Path]) -> None:
    if path.is_dir():
        return
    make_folder(path.parent, made)
    path.mkdir(0o755)
    made.append(path)


def write_beside(path: Path, content: bytes, mode: int) -> None:
    with suppress(FileNotFoundError):
        beside(path).unlink()  # of a run that was killed
    try:
        with beside(path).open("xb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError as error:
        # write(2) does not say where
        raise OSError(error.errno, error.strerror, str(path)) from None


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_service() -> str:
    """Have systemd run the agent, now and after each start; what it says where it does not."""
    for words in (("daemon-reload",), ("enable", "--quiet", UNIT.name), ("restart", UNIT.name)):
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip() or f"systemctl {' '.join(words)} ended with {done.returncode}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
