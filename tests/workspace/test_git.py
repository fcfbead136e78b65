"""One commit of what the run wrote; what the user has staged, changed or begun is not touched."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from warren.workspace.git import Commit, commit, message_for

ONE = "vars/per-machine/laptop1/wireguard-keys-vpn/publickey/value"
TWO = "vars/per-machine/laptop2/wireguard-keys-vpn/publickey/value"


@pytest.fixture(autouse=True)
def own_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own configuration stays out of it."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Ann\nemail = ann@example.com\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "fleet")


def new_repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "warren.toml").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(("git", "-C", str(folder), *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def status(folder: Path) -> list[str]:
    return git(folder, "status", "--porcelain", "--untracked-files=all").splitlines()


def last(folder: Path) -> tuple[str, list[str]]:
    """Subject and files of the last commit."""
    subject, _, files = git(folder, "show", "--format=%s", "--name-only").partition("\n")
    return subject, files.split()


def write(folder: Path, *paths: str, text: str = "x") -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def test_what_was_written_is_one_commit(repository: Path) -> None:
    write(repository, ONE, TWO)
    done = commit(repository, (ONE, TWO), "vars: generate")
    assert done == Commit(git(repository, "rev-parse", "--short", "HEAD").strip())
    assert last(repository) == ("vars: generate", [ONE, TWO])
    assert status(repository) == []


def test_what_the_user_staged_and_changed_stays_as_it_is(repository: Path) -> None:
    write(repository, ONE)
    commit(repository, (ONE,), "before")
    write(repository, "staged.txt", "both.txt", "warren.toml", text="staged")
    git(repository, "add", ".")
    write(repository, "both.txt", "dirty.txt", text="changed")
    before = status(repository)
    assert sorted(before) == ["?? dirty.txt", "A  staged.txt", "AM both.txt", "M  warren.toml"]
    write(repository, ONE, TWO, text="new")
    assert commit(repository, (ONE, TWO), "vars: generate").id
    assert last(repository)[1] == [ONE, TWO]
    assert status(repository) == before
    assert git(repository, "show", ":both.txt") == "staged"


def test_other_vars_are_left_out(repository: Path) -> None:
    write(repository, ONE, TWO)
    commit(repository, (ONE,), "vars: generate")
    assert last(repository)[1] == [ONE]
    assert status(repository) == [f"?? {TWO}"]


def test_a_removed_value_is_committed(repository: Path) -> None:
    write(repository, ONE)
    commit(repository, (ONE,), "one")
    (repository / ONE).unlink()
    assert commit(repository, (ONE, TWO), "vars: remove").id  # TWO never was in git
    assert last(repository) == ("vars: remove", [ONE])
    assert status(repository) == []


def test_nothing_changed_is_no_commit(repository: Path) -> None:
    write(repository, ONE)
    first = commit(repository, (ONE,), "one")
    write(repository, ONE)
    write(repository, "warren.toml", text="dirty")
    assert commit(repository, (ONE,), "two") == Commit()
    assert git(repository, "rev-parse", "--short", "HEAD").strip() == first.id
    assert commit(repository, (), "three") == Commit()


def test_without_a_repository_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path, ONE)
    assert commit(tmp_path, (ONE,), "vars: generate") == Commit()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["home", "vars"]


def test_a_folder_below_the_repository(repository: Path) -> None:
    below = repository / "deep" / "fleet"
    write(below, ONE)
    write(repository, ONE)  # its namesake at the top is another file
    assert commit(below, (ONE,), "vars: generate").id
    assert last(repository)[1] == [f"deep/fleet/{ONE}"]
    assert status(repository) == [f"?? {ONE}"]


def test_the_first_commit_of_a_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    write(tmp_path, ONE, "staged.txt")
    git(tmp_path, "add", "staged.txt")
    assert commit(tmp_path, (ONE,), "vars: generate").id
    assert last(tmp_path)[1] == [ONE]
    assert "A  staged.txt" in status(tmp_path)


def test_a_detached_head(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    write(repository, ONE)
    assert commit(repository, (ONE,), "vars: generate").id
    assert last(repository)[1] == [ONE]


def test_a_second_working_tree(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(repository, "worktree", "add", "--quiet", "-b", "other", str(other))
    write(other, ONE)
    assert commit(other, (ONE,), "vars: generate").id
    assert last(other)[1] == [ONE]


def conflict(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "theirs")
    write(repository, "warren.toml", text="theirs\n")
    git(repository, "commit", "--quiet", "--all", "--message=theirs")
    git(repository, "checkout", "--quiet", "main")
    write(repository, "warren.toml", text="ours\n")
    git(repository, "commit", "--quiet", "--all", "--message=ours")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("merge", "theirs"), "a merge"),
        (("rebase", "theirs"), "a rebase"),
        (("cherry-pick", "theirs"), "a cherry-pick"),
        (("revert", "--no-edit", "HEAD~1"), "a revert"),
    ],
)
def test_in_the_middle_of_something_nothing_is_committed(repository: Path, command: tuple[str, ...], name: str) -> None:
    conflict(repository)
    if command[0] == "revert":
        write(repository, "warren.toml", text="again\n")
        git(repository, "commit", "--quiet", "--all", "--message=again")
    assert subprocess.run(("git", "-C", str(repository), *command), capture_output=True, check=False).returncode
    write(repository, ONE)
    before = status(repository)
    done = commit(repository, (ONE,), "vars: generate")
    assert done.id == ""
    assert done.note.startswith(f"not committed: {name} is under way")
    assert status(repository) == before
    assert (repository / ONE).read_text() == "x"


def test_during_a_bisect_nothing_is_committed(repository: Path) -> None:
    git(repository, "bisect", "start")
    write(repository, ONE)
    assert "a bisect is under way" in commit(repository, (ONE,), "vars: generate").note


def test_who_commits_is_not_known(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    write(repository, ONE)
    before = status(repository)
    done = commit(repository, (ONE,), "vars: generate")
    assert done.id == ""
    assert "git does not know who you are" in done.note
    assert "git config user.email" in done.note
    assert status(repository) == before
    assert (repository / ONE).read_text() == "x"


def test_a_hook_that_refuses(repository: Path) -> None:
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no commits on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    write(repository, ONE, "staged.txt")
    git(repository, "add", "staged.txt")
    before = status(repository)
    done = commit(repository, (ONE,), "vars: generate")
    assert done.id == ""
    assert "no commits on Fridays" in done.note
    assert status(repository) == before


def test_a_hook_sees_what_is_committed(repository: Path) -> None:
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ngit diff --cached --name-only > seen\n")
    hook.chmod(0o755)
    write(repository, ONE, "staged.txt")
    git(repository, "add", "staged.txt")
    assert commit(repository, (ONE,), "vars: generate").id
    assert (repository / "seen").read_text().split() == [ONE]


def test_another_git_at_work(repository: Path) -> None:
    (repository / ".git" / "index.lock").touch()
    write(repository, ONE)
    done = commit(repository, (ONE,), "vars: generate")
    assert done.id == ""
    assert "index.lock" in done.note


def test_another_git_at_work_in_the_middle(repository: Path) -> None:
    """What stands in the note mends it."""
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch .git/index.lock\n")
    hook.chmod(0o755)
    write(repository, ONE)
    done = commit(repository, (ONE,), "vars: generate")
    assert done.id
    assert done.note.endswith("run git reset vars")
    (repository / ".git" / "index.lock").unlink()
    git(repository, "reset", "--quiet", "vars")
    assert status(repository) == []


def test_ignored_values_are_named(repository: Path) -> None:
    (repository / ".gitignore").write_text("laptop2\n")
    write(repository, ONE, TWO)
    done = commit(repository, (ONE, TWO), "vars: generate")
    assert done.id
    assert f".gitignore keeps out 1 of the files, {TWO} for one" in done.note
    assert last(repository)[1] == [ONE]
    (repository / ".gitignore").write_text("vars\n")
    write(repository, ONE, text="tracked files are never ignored")
    assert commit(repository, (ONE, TWO), "vars: generate").id
    none = commit(repository, (TWO,), "vars: generate")
    assert none.id == ""
    assert TWO in none.note


def test_a_damaged_repository_is_named(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nonexistent\n")
    write(tmp_path, ONE)
    assert "/nonexistent" in commit(tmp_path, (ONE,), "vars: generate").note


def test_without_the_git_program(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    write(repository, ONE)
    write(tmp_path, ONE)
    assert "there is no git program here" in commit(repository, (ONE,), "vars: generate").note
    assert commit(tmp_path, (ONE,), "vars: generate") == Commit()


def test_ten_thousand_files_and_odd_names(repository: Path) -> None:
    """More than a command line holds; and a name that git would take for a pattern."""
    paths = [f"vars/per-machine/laptop{n}/wireguard-keys-vpn/publickey/value" for n in range(10_000)]
    write(repository, *paths, "vars/[a-z]*", "vars/abc")
    assert commit(repository, [*paths, "vars/[a-z]*"], "vars: generate").id
    assert status(repository) == ["?? vars/abc"]


@pytest.mark.root
def test_root_commits_as_the_owner_of_the_folder() -> None:
    """`sudo warren vars generate` leaves nothing that the owner could not write beside."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it gives a repository to another user")
    with TemporaryDirectory() as outside:  # pytest's own folders are closed to others
        Path(outside).chmod(0o755)
        repository = new_repository(Path(outside) / "fleet")
        git(repository, "config", "user.name", "Ann")
        git(repository, "config", "user.email", "ann@example.com")
        write(repository, ONE)
        for each in (repository, *repository.rglob("*")):
            os.chown(each, 4321, 4321)
        done = commit(repository, (ONE,), "vars: generate")
        assert done.id, done.note
        assert {each.stat().st_uid for each in (repository / ".git").rglob("*")} == {4321}


def test_the_message_names_what_and_for_whom() -> None:
    keys, network = "wireguard-keys-vpn", "wireguard-network-vpn"
    assert message_for("generate", [(keys, "laptop1")]) == "vars: generate wireguard-keys-vpn for laptop1"
    pairs = [(generator, f"laptop{n}") for generator in (network, keys) for n in range(1234)]
    assert message_for("generate", pairs) == (
        "vars: generate wireguard-network-vpn, wireguard-keys-vpn for laptop0, laptop1, laptop2, laptop3 and 1,230 more"
    )
