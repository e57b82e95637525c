"""The index has each page, each link has a target, and what pages list exists."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from extensions.context import COMMANDS
from tests.checks import missing
from tests.renders import ROOT

DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
FRONT = ("AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "benchmarks/README.md")
PAGES = [*(ROOT / name for name in FRONT), *sorted(DOCS.rglob("*.md"))]
FILES = tomllib.loads((ROOT / "tests" / "files.toml").read_text("utf-8"))["always"]
LINK = re.compile(r"\]\(<?(?!https?:)([^)>#]+)[^)>]*>?\)")
TREE = re.compile(r"```\nmy-service/\n(.+?)```", re.DOTALL)


def links(page: Path) -> set[Path]:
    """The files that the page links to."""
    found = LINK.findall(page.read_text("utf-8"))
    return {(page.parent / link).resolve() for link in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_somewhere(page: Path) -> None:
    assert [link for link in links(page) if not link.exists()] == []


def test_the_index_has_each_page() -> None:
    pages = {*DOCS.glob("*.md"), DECISIONS / "README.md"} - {DOCS / "README.md"}
    assert pages - links(DOCS / "README.md") == set()


def test_the_list_of_decisions_has_each_in_order() -> None:
    listed = re.findall(r"^(\d+)\. \[.+\]\((.+)\)$", (DECISIONS / "README.md").read_text(), re.M)
    numbers = [int(number) for number, _ in listed]
    names = [name for _, name in listed]
    assert numbers == list(range(1, len(numbers) + 1))
    assert names == sorted(path.name for path in DECISIONS.glob("0*.md"))
    assert [name for number, name in listed if not name.startswith(f"{int(number):04}-")] == []


def test_the_readme_leads_to_the_rest() -> None:
    assert {DOCS / "README.md", ROOT / "CONTRIBUTING.md"} <= links(ROOT / "README.md")


def test_the_readme_shows_what_is_rendered() -> None:
    (tree,) = TREE.findall((ROOT / "README.md").read_text("utf-8"))
    folder, shown = "", list[str]()
    for line in tree.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split(", ")
        if line.startswith("     "):
            names = [folder + name for name in names]
        elif names[0].endswith("/"):
            folder = names[0]
        shown += names
    rendered = {*FILES, *(f"{'/'.join(parts)}/" for parts in folders())}
    assert [name for name in shown if name not in rendered] == []
    inside = {name for name in rendered if re.fullmatch(r"app/\w+/", name)}
    assert inside - set(shown) == set(), "the README doesn't show each folder of app/"


def folders() -> list[list[str]]:
    return [name.split("/")[:depth] for name in FILES for depth in range(1, name.count("/") + 1)]


def test_ci_runs_the_readmes_command() -> None:
    (command,) = re.findall(r"^```sh\n(uv run .+)\n```", (ROOT / "README.md").read_text(), re.M)
    assert command == "uv run pytest"
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_contributing_is_one_page() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 100


def test_each_page_starts_the_api_as_a_service_does() -> None:
    """Without a limit for its last requests a stop could take for ever."""
    text = (DOCS / "operating.md").read_text("utf-8")
    assert text.count(COMMANDS["api"]) == text.count("uvicorn app.main:app") > 1


def test_the_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    """The user, the folder and the programs aren't checked: only the target machine has them."""
    if not shutil.which("systemd-analyze"):
        raise missing("no systemd-analyze here: install Debian's package systemd")
    page = (DOCS / "operating.md").read_text("utf-8")
    units = re.findall(r"```ini\n# /etc/systemd/system/([\w@.-]+\.service).*\n((?s:.+?))```", page)
    kinds = [re.split(r"[.@]", name)[0].removeprefix("my-service-") for name, _ in units]
    assert kinds == ["api", "worker", "scheduler", "migrate"]
    for name, unit in units:
        program = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit, flags=re.MULTILINE)
        path = tmp_path / name.replace("@.", "@1.")
        path.write_text(program, "utf-8")
        verified = ["systemd-analyze", "verify", "--man=no", path]
        done = subprocess.run(verified, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
