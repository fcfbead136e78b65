"""Where the checks put what they find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from warren.inventory.findings import Finding, Path
from warren.inventory.wording import Nearest, dotted


@dataclass(frozen=True, slots=True)
class Broken:
    """Where the shape of the tree was wrong and something was taken out: what is missing there is not missed."""

    paths: frozenset[Path] = frozenset()
    _above: frozenset[Path] = frozenset()

    @classmethod
    def at(cls, paths: Iterable[Path]) -> Broken:
        exact = frozenset(paths)
        return cls(exact, frozenset(path[:length] for path in exact for length in range(len(path))))

    def within(self, path: Path) -> bool:
        """Whether something at `path`, above or below is broken."""
        return path in self._above or any(path[:length] in self.paths for length in range(len(path) + 1))

    def directly_in(self, path: Path) -> bool:
        """Whether the table at `path` has a broken key of its own."""
        return path in self._above and any(broken[:-1] == path for broken in self.paths)


@dataclass(slots=True)
class Report:
    """Findings in a tree that lies below the keys `root` of its file; the checks know nothing of the file."""

    root: Path = ()
    findings: list[Finding] = field(default_factory=list)
    broken: Broken = field(default_factory=Broken)
    nearest: Nearest = field(default_factory=Nearest)
    _broken_but_for: dict[tuple[str, ...], Broken] = field(default_factory=dict)

    def broken_but_for(self, *keys: str) -> Broken:
        """Where the tree is broken, without what stands at one of these keys or directly in it."""
        if keys not in self._broken_but_for:
            paths = self.broken.paths
            self._broken_but_for[keys] = Broken.at(path for path in paths if not any(key in path[-2:] for key in keys))
        return self._broken_but_for[keys]

    def add(self, path: Path, message: str, mend: str, *, at_key: bool = False) -> None:
        self.findings.append(Finding((*self.root, *path), message, mend, at_key))

    def dotted(self, *path: str | int) -> str:
        """The path as the operator would write it at the top of the file."""
        return dotted((*self.root, *path))
