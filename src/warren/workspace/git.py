"""One git commit of the vars that a run wrote, and of nothing else that lies or is staged in the repository."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What git keeps in its folder while it waits for the user; a commit in between would become part of it.
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisect",
}


@dataclass(frozen=True, slots=True)
class Commit:
    """What became of it: the commit's short `id`, or "" with the reason in `note` (none where there is no
    repository, or nothing changed)."""

    id: str = ""
    note: str = ""


def commit(folder: Path, paths: Iterable[str], message: str) -> Commit:
    """Commit these files (relative to `folder`, removed ones too) if the folder is in a git repository.

    Whatever git refuses, the files stay as they are, and so does the index.
    """
    git = _Git(folder)
    try:
        repository = git.folder_of_repository()
        if not repository:
            return Commit()
        if under_way := next((what for name, what in _UNDER_WAY.items() if (repository / name).exists()), None):
            raise _Refused(f"{under_way} is under way in this repository")
        untracked = set(paths) - set(git.run("ls-files", "-z", "--", "vars").split("\0"))
        ignored = git.ignored(untracked)
        done = git.commit(repository, set(paths) - ignored, message)
        notes = (done.note, _ignored_note(ignored) if ignored else "")
        return Commit(done.id, "\n".join(filter(None, notes)))
    except _Refused as refusal:
        return Commit(note=f"not committed: {refusal}\n{_BY_HAND}")


_BY_HAND = "the values are stored; to commit them by hand: git add vars && git commit"


def last_changes(folder: Path, below: str) -> dict[str, int]:
    """When git last saw each file below a folder change, by its path relative to `folder`: seconds since 1970.

    Empty where there is no repository, or git cannot tell.
    """
    git = _Git(folder)
    try:
        if not git.folder_of_repository():
            return {}
        # Newest first; each file counts once. A merge does not change what both sides had.
        told = git.run("log", "--format=%x00%ct", "--name-only", "--relative", "-z", "--", below)
    except _Refused:
        return {}
    found: dict[str, int] = {}
    changed_unix_s = 0
    for word in told.split("\0"):
        name = word.strip("\n")
        if name.isdigit():
            changed_unix_s = int(name)
        elif name:
            found.setdefault(name, changed_unix_s)
    return found


class _Refused(Exception):
    """Git said no; its own words."""


class _Git:
    """The git program, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = folder.stat()

    def folder_of_repository(self) -> Path | None:
        """The .git folder; None where there is no working tree."""
        looks_like_one = any((each / ".git").exists() for each in (self._folder, *self._folder.resolve().parents))
        try:
            answer = self.run("rev-parse", "--is-inside-work-tree", "--absolute-git-dir")
        except _Refused:
            if looks_like_one:  # a damaged one, somebody else's, or git is not installed
                raise
            return None
        is_inside, _, path = answer.partition("\n")
        return Path(path.rstrip("\n")) if is_inside == "true" else None

    def ignored(self, paths: set[str]) -> set[str]:
        """Those that .gitignore keeps out."""
        if not paths:
            return set()
        answer = self._call(("check-ignore", "-z", "--stdin"), paths)
        if answer.returncode > 1:  # 1: none is ignored
            raise _Refused(answer.stderr.strip())
        return paths.intersection(answer.stdout.split("\0"))

    def commit(self, repository: Path, paths: set[str], message: str) -> Commit:
        """Make the commit from an index of its own: the last commit's files with ours on top.

        `git commit --only` means the same, but compares each path with each file: the square of the fleet.
        """
        self._know_who_commits()
        index = repository / f"index.warren-{os.getpid()}"
        aside = {"GIT_INDEX_FILE": str(index)}
        take = ("update-index", "--add", "--remove", "-z", "--stdin")
        try:
            has_commits = self._call(("rev-parse", "--quiet", "--verify", "HEAD")).returncode == 0
            # From the user's index, for it knows which files need not be read again.
            self.run("read-tree", f"--index-output={index}", *(("--reset", "HEAD") if has_commits else ("--empty",)))
            self.run(*take, paths=paths, environment=aside)
            if has_commits and self._call(("diff-index", "--cached", "--quiet", "HEAD"), (), aside).returncode == 0:
                return Commit()
            self.run("commit", "--quiet", f"--message={message}", environment=aside)
        finally:
            index.unlink(missing_ok=True)
        name = self.run("rev-parse", "--short", "HEAD").strip()
        # Without this, the user's index would take back what was just committed.
        if self._call(take, paths).returncode:
            return Commit(name, "git's index was locked meanwhile and does not know of it: run git reset vars")
        return Commit(name)

    def _know_who_commits(self) -> None:
        try:
            self.run("var", "GIT_AUTHOR_IDENT")
            self.run("var", "GIT_COMMITTER_IDENT")
        except _Refused:
            who = 'git config user.name "Your Name"; git config user.email you@example.com'
            raise _Refused(f"git does not know who you are; tell it: {who}") from None

    def run(self, *arguments: str, paths: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> str:
        done = self._call(arguments, paths, environment)
        if done.returncode:
            raise _Refused((done.stderr + done.stdout).strip() or f"git {arguments[0]} ended with {done.returncode}")
        return done.stdout

    def _call(
        self, arguments: Sequence[str], paths: Iterable[str] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **(environment or {})}
        # Under sudo: root's git would leave objects that the owner of the repository cannot write beside.
        as_owner = os.geteuid() == 0 and self._owner.st_uid != 0
        if as_owner:
            environment["HOME"] = _home(self._owner.st_uid)
        try:
            return subprocess.run(
                ("git", "-C", str(self._folder), *arguments),
                input="".join(f"{path}\0" for path in sorted(paths)),
                capture_output=True,
                text=True,
                errors="surrogateescape",
                check=False,
                env=environment,
                user=self._owner.st_uid if as_owner else None,
                group=self._owner.st_gid if as_owner else None,
                extra_groups=[] if as_owner else None,
            )
        except FileNotFoundError:
            raise _Refused("there is no git program here") from None


def _home(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_dir
    except KeyError:
        return "/nonexistent"


def _ignored_note(ignored: set[str]) -> str:
    example = min(ignored)
    return (
        f"not committed: .gitignore keeps out {len(ignored)} of the files, {example} for one; "
        "public values belong into git: mend .gitignore, then git add vars && git commit"
    )


def message_for(verb: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The subject of a commit, from (generator, machine) pairs: `vars: generate wireguard-keys-vpn for laptop1`."""
    pairs = list(pairs)
    return f"vars: {verb} {_listed(pair[0] for pair in pairs)} for {_listed(pair[1] for pair in pairs)}"


_LISTED = 4


def _listed(names: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _LISTED:,} more" if len(distinct) > _LISTED else ""
    return ", ".join(distinct[:_LISTED]) + more
