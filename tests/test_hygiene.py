"""What no file of the project holds: a developer's paths, the hosts of package registries, private keys, loose ends."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
HERE = rf"(?<![\w.}}]){re.escape(str(ROOT))}(?![\w-])"

# Written so that no pattern and no offender matches in this file, which is read, too.
FORBIDDEN = {
    "a path of somebody's machine": rf"/(?:home|Users)/[a-z]\w*/|/root/\.(?!ssh)|{HERE}",
    "the host of a package registry": r"(?:pypi|pythonhosted|(?:deb|security)\.debian|npmjs|crates)\.(?:org|io|net)\b",
    "a loose end": r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b",
    "a private key": r"-{5}BEGIN [A-Z ]*PRIVATE KEY|AGE-SECRET-KEY-1\w|(?i:private_?key\W{1,4})[A-Za-z0-9+/]{43}=",
}
OFFENDERS = {
    "a path of somebody's machine": ("/home" + "/alice/warren", "/root" + "/.cache/x", f"cd {ROOT}"),
    "the host of a package registry": ("https://pypi" + ".org/simple", "http://deb" + ".debian.org/debian"),
    "a loose end": ("# TO" + "DO: later", "FIX" + "ME"),
    "a private key": (
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
        f"PrivateKey = {'A' * 43}=",
        f'private_key="{"A" * 43}="',
    ),
}
PUBLISHED_KEYS = ("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",)  # the example of wg(8)


@cache
def texts() -> dict[str, str]:
    """Every file that git has or would take, as text; what is no text is left out."""
    # safe.directory: root may test what somebody else has cloned.
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run([*git, "--exclude-standard"], check=True, capture_output=True, text=True).stdout
    found = {}
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            data = (ROOT / name).read_bytes()
            if b"\0" not in data:
                found[name] = data.decode(errors="replace")
    return found


def findings(kind: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(FORBIDDEN[kind], line) and not any(key in line for key in PUBLISHED_KEYS):
            yield f"{number}: {line.strip()[:100]}"


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_file_holds(kind: str) -> None:
    assert "pyproject.toml" in texts()
    found = [f"{name}:{finding}" for name, text in texts().items() for finding in findings(kind, text)]
    assert not found, f"{kind}:\n" + "\n".join(found)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, each in OFFENDERS.items() for text in each])
def test_it_would_be_found(kind: str, text: str) -> None:
    assert list(findings(kind, text))


def test_lock_pins_with_hashes_and_names_no_address() -> None:
    lock = texts()["requirements.lock"]
    assert "://" not in lock
    assert not [line for line in lock.splitlines() if line.startswith("-")], "options in the lock file"
    for entry in re.split(r"\n(?=\w)", lock.strip()):
        assert re.match(r"[\w.-]+==[\w.]+ ", entry), f"not pinned: {entry.splitlines()[0]}"
        assert "--hash=sha256:" in entry, f"no hash: {entry.splitlines()[0]}"


def test_lock_is_what_pyproject_asks_for() -> None:
    """mend: make lock"""
    project = tomllib.loads(texts()["pyproject.toml"])
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", texts()["requirements.lock"], re.MULTILINE))
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for text in [*asked, *project["build-system"]["requires"]]:
        requirement = Requirement(text)
        assert requirement.name in locked, f"{text} is not in requirements.lock: make lock"
        version = locked[requirement.name]
        assert requirement.specifier.contains(version), f"{text}, but locked is {version}: make lock"
