"""Updates that would lose something, or end half-way: each is refused, and changes nothing."""

import contextlib
import os
import re
from pathlib import Path

import pytest
from copier import run_update
from copier.errors import TaskError, UserMessageError

from tests.services import HOW, Service
from updates import steps
from updates.history import git

NAME = os.fsdecode(b"caf\xe9")


def test_an_edited_file_that_git_ignores_is_refused(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    service.append(".gitignore", "Procfile\n")
    service.append("Procfile", "more: true\n")
    before = service.committed().files()
    with pytest.raises(TaskError):
        service.update(backends=["celery"])
    said = "Git ignores Procfile, which the template renders: "
    assert capfd.readouterr().err.splitlines()[-1].startswith(said)
    assert service.files() == before


def refused(service: Service, capfd: pytest.CaptureFixture[str]) -> str:
    """What the step before an update says, which refuses it."""
    capfd.readouterr()
    with contextlib.chdir(service.folder):
        assert steps.before(Path(".copier-answers.yml")) == 1
    return capfd.readouterr().err


def accepted(service: Service) -> None:
    with contextlib.chdir(service.folder):
        assert steps.before(Path(".copier-answers.yml")) == 0


def in_a_larger_repository(template: Path, folder: Path) -> Service:
    """A service in the folder `one`, beside two other folders."""
    service = Service(template, folder / "one").render({"backends": ["arq"]})
    for name in ("other/x", "third/x"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("theirs\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    return service.committed()


def test_what_git_overlooks_is_refused(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}).committed()
    for flag in ("skip-worktree", "assume-unchanged"):
        service.git("update-index", f"--{flag}", "Procfile")
        service.append("Procfile", "more: true\n")
        assert service.git("status", "--porcelain") == []
        assert refused(service, capfd).startswith("Git doesn't look at Procfile, which ")
        service.git("update-index", f"--no-{flag}", "Procfile")
    (service.folder / "café.md").touch()
    service.committed()
    for name, good, *bad in (
        ("status.showUntrackedFiles", "normal", "no", "false", "Off", "0"),
        ("apply.whitespace", "nowarn", "error", "error-all", "fix", "strip", "unknown"),
        ("core.quotePath", "true", "off"),
    ):
        for each in bad:
            service.git("config", name, each)
            assert f" Run git config {name} {good}. " in refused(service, capfd)
        service.git("config", name, good)
    accepted(service)


def test_a_repository_that_is_not_whole_is_refused(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    everything = tmp_path / "all"
    service = in_a_larger_repository(template, everything)
    oid = git(everything, "rev-parse", "HEAD:other/x").decode().strip()
    sides = "".join(f"100644 {oid} {side}\tother/x\n" for side in (1, 2, 3))
    git(everything, "rm", "--cached", "--quiet", "other/x")
    git(everything, "update-index", "--index-info", stdin=sides.encode())
    assert "files ../other/x are unmerged" in refused(service, capfd)
    git(everything, "reset", "--quiet")
    (everything / "third" / "x").unlink()
    assert "files ../third/x are missing on disk" in refused(service, capfd)
    git(everything, "restore", ".")
    git(everything, "sparse-checkout", "set", "one", "third")
    assert "files ../other/x are missing on disk" in refused(service, capfd)


def test_a_rej_anywhere_in_the_repository_is_refused(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Copier takes each for its own: it undoes the file beside it, and deletes the .rej."""
    service = in_a_larger_repository(template, tmp_path / "all")
    theirs, left = (tmp_path / "all" / "other" / name for name in ("x", "x.rej"))
    theirs.write_text("not committed\n")
    left.touch()
    for ignored in ("", "*.rej\n"):
        (tmp_path / "all" / ".git" / "info" / "exclude").write_text(ignored)
        with pytest.raises(TaskError):
            service.update(backends=["celery"])
        assert "The repository has other/x.rej: " in capfd.readouterr().err
        assert (theirs.read_text(), left.exists()) == ("not committed\n", True)
    left.unlink()
    accepted(service)


def test_a_file_that_the_users_own_git_ignores_is_refused(
    template: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Git knows it here, but would leave it out of Copier's copies."""
    service = in_a_larger_repository(template, tmp_path / "all")
    service.append("AGENTS.md", "Mine.\n")
    (service.folder / "mine.md").touch()
    service.committed()
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "ignore").write_text("mine.md\n/one/AGENTS.md\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    said = "Your global ignore file of git matches AGENTS.md, which the template renders: "
    assert refused(service, capfd).startswith(said)
    service.replace(".copier-answers.yml", "own_files: []", "own_files: [AGENTS.md]")
    accepted(service)


def test_answers_without_which_an_update_would_end_half_way_are_refused(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}).committed()
    answers = service.folder / ".copier-answers.yml"
    whole = answers.read_text("utf-8")
    for lost in ("", "backends: []\n"):
        answers.write_text(whole.replace("backends:\n- arq\n", lost), "utf-8")
        assert refused(service.committed(), capfd).startswith(".copier-answers.yml has no backends")
    answers.write_text(whole, "utf-8")
    accepted(service.committed())
    service.append(".gitignore", ".copier-answers.yml\n")
    service.git("rm", "--cached", "--quiet", ".copier-answers.yml")
    assert refused(service.committed(), capfd).startswith("Git has no .copier-answers.yml: ")


def test_what_is_not_text_is_refused(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file of the user's own may hold any bytes, and any name outside of the service."""
    service = in_a_larger_repository(template, tmp_path / "all")
    for mine in (b"caf\xe9\n", b"\0\n"):
        for name in ("logo.png", "AGENTS.md"):
            (service.folder / name).write_bytes(mine)
        said = "Bytes that aren't UTF-8 text are in AGENTS.md, which the template renders: "
        assert refused(service.committed(), capfd).startswith(said)
    service.git("checkout", "--quiet", "HEAD~2", "--", "AGENTS.md")
    accepted(service.committed())
    inside, outside = service.folder / NAME, tmp_path / "all" / "other" / NAME
    inside.touch()
    assert re.match(r"The names caf\S+ aren't UTF-8: ", refused(service.committed(), capfd))
    inside.rename(outside)
    service.git("commit", "--quiet", "--all", "--message", "Work")
    assert re.match(r"The names other/caf\S+ aren't UTF-8: ", refused(service, capfd))
    git(tmp_path / "all", "add", "other")
    accepted(service.committed())


def test_what_git_cannot_give_back_and_an_older_version_are_refused(
    template: Path, tmp_path: Path
) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["arq"]}, "v0.2.0")
    with pytest.raises(UserMessageError, match="only supported in git-tracked subprojects"):
        service.update()
    service.committed()
    with pytest.raises(UserMessageError, match="Downgrades are not supported"):
        run_update(service.folder, vcs_ref="v0.1.0", **HOW)
    assert service.git("status", "--porcelain") == []
    service.append("README.md", "dirty\n")
    before = service.files()
    with pytest.raises(UserMessageError, match="Please commit or stash"):
        service.update()
    assert service.files() == before
