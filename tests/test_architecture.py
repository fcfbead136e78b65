"""The rules that keep the tree readable, each with its reason: who may import whom, and what is done where.

Each rule is a function from modules to what breaks it. It is held against src/warren, and against small offenders,
so that a rule that can no longer fail is found out.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

SOURCE = Path(__file__).parent.parent / "src"

# From the lowest to the highest: the order in which the flow is read. `warren` itself is the map, and imports nothing.
CORE = ("warren", "errors", "names", "wireguard", "inventory", "network", "plan", "render")
STAGES = (*CORE, "vars", "workspace", "host", "agent", "fleet", "lab", "cli", "__main__")
MACHINE_SIDE = ("agent", "host")  # with all that they import: what is carried to a machine

IMPURE_MODULES = {
    **dict.fromkeys(("os", "shutil", "tempfile", "glob", "fcntl", "sys"), "files and environment"),
    **dict.fromkeys(("socket", "ssl", "http", "urllib.request", "selectors", "select"), "sockets"),
    **dict.fromkeys(("subprocess", "multiprocessing", "asyncio", "threading", "signal"), "processes and events"),
    **dict.fromkeys(("time", "sched"), "the clock"),
    **dict.fromkeys(("random", "secrets", "uuid"), "randomness"),
    "logging": "output",
}
IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval", "breakpoint"})
IMPURE_METHODS = frozenset(
    {"read_text", "read_bytes", "write_text", "write_bytes", "open", "iterdir", "rglob", "mkdir", "unlink", "rmdir"}
    | {"touch", "chmod", "symlink_to", "exists", "is_file", "is_dir", "stat", "now", "utcnow", "today"}
)

KERNEL_PLACES = frozenset({"host", "lab"})
KERNEL_NAMES = frozenset({"AF_NETLINK", "AF_PACKET"})
KERNEL_PATHS = ("/proc/sys", "/run/wireguard", "/dev/net/tun")
KERNEL_PROGRAMS = frozenset({"nft", "sysctl", "ip", "wg", "wg-quick", "wireguard-go", "tc", "modprobe", "iptables"})
SSH_PLACES = frozenset({"fleet", "lab"})
SSH_PROGRAMS = frozenset({"ssh", "scp", "sftp", "sshd"})
SSH_MODULES = frozenset({"asyncssh", "paramiko", "fabric"})

VAGUE_NAMES = frozenset(
    {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc", "shared", "tools"}
)
LONG_MODULE_LINES, LOOK_AGAIN_LINES, LOOK_AGAIN_FUNCTION_LINES = 500, 300, 40
LONG_MODULES: frozenset[str] = frozenset()  # those that may be longer, each with its reason


@dataclass(frozen=True, slots=True)
class Module:
    """One file. `stage` is the folder or file directly below `warren`, `warren` for its own `__init__`."""

    name: str
    is_package: bool
    text: str
    tree: ast.Module

    @property
    def stage(self) -> str:
        return self.name.split(".")[1] if "." in self.name else self.name


Modules: TypeAlias = Mapping[str, Module]


def modules_of(files: Mapping[str, str]) -> Modules:
    """From path below src/ -> text."""
    found = {}
    for path, text in files.items():
        parts = path.removesuffix(".py").split("/")
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Module(name, is_package, text, ast.parse(text))
    return found


@pytest.fixture(scope="module")
def warren() -> Modules:
    return modules_of(
        {str(file.relative_to(SOURCE)): file.read_text() for file in sorted(SOURCE.glob("warren/**/*.py"))}
    )


def imports(module: Module, modules: Modules) -> Iterator[tuple[str, int]]:
    """Absolute name and line of everything imported, inside functions too; ours as far down as the module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.name if module.is_package else module.name.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{start}.{alias.name}"
                yield (whole if whole in modules else start), node.lineno


def words(module: Module) -> Iterator[tuple[str, int]]:
    """Every text constant that is not a docstring, with its line."""
    docstrings = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


def stage_order(modules: Modules) -> Iterator[str]:
    """A lower stage never imports a higher one, so that the folders in order are the flow."""
    for module in modules.values():
        if module.stage not in STAGES:
            yield f"{module.name}: {module.stage} is no stage: give it its place in STAGES, and in warren's docstring"
            continue
        for target, line in imports(module, modules):
            stage = target.split(".")[1] if target.startswith("warren.") else ""
            if stage in STAGES and STAGES.index(stage) > STAGES.index(module.stage):
                yield f"{module.name}:{line} imports {target}: {stage} is a later stage of the flow than {module.stage}"


def core_is_pure(modules: Modules) -> Iterator[str]:
    """The core decides and the shell acts: what the core needs of the world comes in as an argument."""
    for module in modules.values():
        if module.stage not in CORE:
            continue
        for target, line in imports(module, modules):
            for impure, what in IMPURE_MODULES.items():
                if target == impure or target.startswith(f"{impure}."):
                    yield f"{module.name}:{line} imports {target}: {what} belong to the shell ({module.stage} is core)"
        for node in ast.walk(module.tree):
            match node:
                case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                    yield f"{module.name}:{node.lineno} calls {name}(): an effect, and {module.stage} is core"
                case ast.Call(func=ast.Attribute(attr=name)) if name in IMPURE_METHODS:
                    yield f"{module.name}:{node.lineno} calls .{name}(): an effect, and {module.stage} is core"


def machine_side_is_standard_library(modules: Modules) -> Iterator[str]:
    """What is carried to a machine is one file of pure Python that needs nothing but the interpreter."""
    for name, path in machine_side(modules).items():
        for target, line in imports(modules[name], modules):
            top = target.split(".")[0]
            if top != "warren" and top not in sys.stdlib_module_names:
                way = " -> ".join(path)
                yield f"{name}:{line} imports {top}, which no machine has; a machine runs this module: {way}"


def machine_side(modules: Modules) -> dict[str, tuple[str, ...]]:
    """Every module of ours that a machine imports, and the way by which it comes there."""
    reached: dict[str, tuple[str, ...]] = {}
    ahead: list[tuple[str, ...]] = [(name,) for name, module in modules.items() if module.stage in MACHINE_SIDE]
    while ahead:
        path = ahead.pop(0)
        name = path[-1]
        if name in reached or name not in modules:
            continue
        reached[name] = path
        package = name.rpartition(".")[0]  # Python runs its __init__ first
        ahead += [(*path, each) for each in (package, *(target for target, _ in imports(modules[name], modules)))]
    return reached


def kernel_words_in_host_and_lab(modules: Modules) -> Iterator[str]:
    """One place speaks to the kernel, so that one place has to be read to know what Warren does to a machine.

    The core may name programs: it shows steps as commands, and being pure it cannot run them.
    """
    for module in modules.values():
        if module.stage in KERNEL_PLACES:
            continue
        for node in ast.walk(module.tree):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in KERNEL_NAMES:
                yield f"{module.name}: {name} is for host/ and lab/, the only ones that speak to the kernel"
        for word, line in words(module):
            if word.startswith(KERNEL_PATHS):
                yield f'{module.name}:{line} names "{word}": only host/ and lab/ touch such files'
            if word in KERNEL_PROGRAMS and module.stage not in CORE:
                yield f'{module.name}:{line} names the program "{word}": only host/ and lab/ run it'


def ssh_in_fleet(modules: Modules) -> Iterator[str]:
    """Machines are reached in one place, so that deadlines, host keys and jump hosts are decided once."""
    for module in modules.values():
        if module.stage in SSH_PLACES:
            continue
        for target, line in imports(module, modules):
            if target.split(".")[0] in SSH_MODULES:
                yield f"{module.name}:{line} imports {target}: ssh is for fleet/ and lab/"
        for word, line in words(module):
            if word in SSH_PROGRAMS and module.stage not in CORE:
                yield f'{module.name}:{line} names the program "{word}": ssh is for fleet/ and lab/'


def names_say_something(modules: Modules) -> Iterator[str]:
    """A module that is named after nothing collects everything."""
    for name in modules:
        for part in set(name.split(".")) & VAGUE_NAMES:
            yield f'{name}: "{part}" says nothing: name it after what it is about'


def modules_say_what_they_are(modules: Modules) -> Iterator[str]:
    """The docstrings, read in the order of the folders, are the introduction."""
    for module in modules.values():
        if not ast.get_docstring(module.tree):
            yield f"{module.name}: no docstring that says what it is for"


def modules_are_short(modules: Modules) -> Iterator[str]:
    """At 500 lines a module is usually two."""
    for module in modules.values():
        lines = len(module.text.splitlines())
        if lines > LONG_MODULE_LINES and module.name not in LONG_MODULES:
            yield f"{module.name}: {lines} lines: split it, or put it into LONG_MODULES with the reason"


def look_again(modules: Modules) -> Iterator[str]:
    """Guidance, not law: what is longer than usual."""
    for module in modules.values():
        lines = len(module.text.splitlines())
        if lines > LOOK_AGAIN_LINES:
            yield f"{module.name}: {lines} lines"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LOOK_AGAIN_FUNCTION_LINES:
                    yield f"{module.name}.{node.name}: {lines} lines"


Rule: TypeAlias = Callable[[Modules], Iterable[str]]
RULES: tuple[Rule, ...] = (
    stage_order,
    core_is_pure,
    machine_side_is_standard_library,
    kernel_words_in_host_and_lab,
    ssh_in_fleet,
    names_say_something,
    modules_say_what_they_are,
    modules_are_short,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule, warren: Modules) -> None:
    broken = list(rule(warren))
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


PLAN = "warren/plan/diff.py"
OFFENDERS: tuple[tuple[Rule, dict[str, str], str], ...] = (
    (stage_order, {PLAN: "from warren.host import machine"}, "host is a later stage of the flow than plan"),
    (stage_order, {PLAN: "def f():\n    import warren.cli.plan"}, "cli is a later stage"),
    (stage_order, {PLAN: "from ..vars import store"}, "vars is a later stage"),
    (stage_order, {"warren/plan/__init__.py": "from ..vars import store"}, "vars is a later stage"),
    (stage_order, {"warren/plan/__init__.py": "from .. import vars", "warren/vars.py": ""}, "vars is a later stage"),
    (stage_order, {"warren/__init__.py": "from warren.names import MachineName"}, "names is a later stage"),
    (stage_order, {"warren/gossip/__init__.py": ""}, "gossip is no stage"),
    (core_is_pure, {PLAN: "import os.path"}, "files and environment belong to the shell"),
    (core_is_pure, {PLAN: "from urllib.request import urlopen"}, "sockets belong to the shell"),
    (core_is_pure, {PLAN: "def f():\n    from time import monotonic"}, "the clock belong to the shell"),
    (core_is_pure, {PLAN: "import logging"}, "output belong to the shell"),
    (core_is_pure, {PLAN: "open('f')"}, "calls open()"),
    (core_is_pure, {PLAN: "from pathlib import Path\nPath('f').read_text()"}, "calls .read_text()"),
    (core_is_pure, {PLAN: "datetime.datetime.now()"}, "calls .now()"),
    (
        machine_side_is_standard_library,
        {"warren/agent/run.py": "from warren.plan import diff", PLAN: "import pydantic", "warren/plan/__init__.py": ""},
        "pydantic, which no machine has; a machine runs this module: warren.agent.run -> warren.plan.diff",
    ),
    (
        machine_side_is_standard_library,
        {"warren/host/a.py": "import warren.plan.diff", PLAN: "", "warren/plan/__init__.py": "import click"},
        "warren.host.a -> warren.plan.diff -> warren.plan",
    ),
    (kernel_words_in_host_and_lab, {"warren/agent/run.py": "socket(socket.AF_NETLINK)"}, "AF_NETLINK is for host/"),
    (kernel_words_in_host_and_lab, {PLAN: "path = f'/proc/sys/{key}'"}, 'names "/proc/sys/"'),
    (kernel_words_in_host_and_lab, {"warren/cli/plan.py": "run(['nft', '-f', '-'])"}, 'the program "nft"'),
    (ssh_in_fleet, {"warren/cli/machines.py": "run(('ssh', host))"}, 'the program "ssh"'),
    (ssh_in_fleet, {"warren/workspace/git.py": "import asyncssh"}, "imports asyncssh"),
    (names_say_something, {"warren/plan/utils.py": ""}, '"utils" says nothing'),
    (names_say_something, {"warren/helpers/hosts.py": ""}, '"helpers" says nothing'),
    (modules_say_what_they_are, {"warren/plan/__init__.py": "x = 1"}, "warren.plan: no docstring"),
    (modules_are_short, {PLAN: "x = 1\n" * 501}, "warren.plan.diff: 501 lines"),
)


@pytest.mark.parametrize(("rule", "files", "words"), OFFENDERS)
def test_rule_can_fail(rule: Rule, files: dict[str, str], words: str) -> None:
    assert words in "\n".join(rule(modules_of(files)))


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (kernel_words_in_host_and_lab, {"warren/host/nftables.py": "run(['nft', '-f', '-'])"}),
        (kernel_words_in_host_and_lab, {"warren/render/commands.py": "('sysctl', '-w', setting)"}),
        (kernel_words_in_host_and_lab, {"warren/agent/run.py": '"""Leaves AF_NETLINK and /proc/sys to host."""'}),
        (ssh_in_fleet, {"warren/fleet/push.py": "run(['ssh', host])"}),
        (core_is_pure, {"warren/host/files.py": "import os\nopen('f')"}),
        (stage_order, {PLAN: "from warren.network import document", "warren/network/document.py": ""}),
    ],
)
def test_rule_lets_pass(rule: Rule, files: dict[str, str]) -> None:
    assert not list(rule(modules_of(files)))


def test_every_rule_is_seen_to_fail() -> None:
    assert {rule for rule, _, _ in OFFENDERS} == set(RULES)


def test_stages_are_the_folders(warren: Modules) -> None:
    """No stage is listed that is not there: the list is read as a map."""
    assert set(STAGES) == {module.stage for module in warren.values()}


def test_the_machine_side_runs_without_packages(warren: Modules) -> None:
    """What the rule says of the text, shown: an interpreter that sees nothing but the source imports it all."""
    names = sorted(machine_side(warren))
    assert {"warren.agent.reconcile", "warren.host.machine", "warren.plan.diff"} <= set(names)
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import {', '.join(names)}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sizes_are_told(warren: Modules, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, never a failure, except that what it prints from is there."""
    assert warren
    with capsys.disabled():
        for line in look_again(warren):
            print(f"\nlonger than usual: {line}", end="")
