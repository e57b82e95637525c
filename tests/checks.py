"""Finds problems with tools, and tests that a page names but that don't exist."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.renders import ROOT

LINK = re.compile(r"\[`(\w+)`\]\(<?\.\./(template/tests/[^)>]+)>?\)")
A_TEST = re.compile(r"^\s*(?:from|import) (?:[\w.]*\b|tests import )test_\w+", re.MULTILINE)
OFFLINE = ["--offline", "--quiet", "--no-progress", "--color=never"]


def ruff(folder: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "ruff", *arguments]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    lines = (done.stdout + done.stderr).splitlines()
    return lines or [f"ruff: {done.returncode}"] if done.returncode else []


def none(problems: list[str]) -> None:
    """Fail if there are problems, with one line for each; pytest would shorten a comparison."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def missing(what: str) -> BaseException:
    """Returns the exception to raise: it skips the test, or fails it in CI, which lacks nothing."""
    if os.environ.get("CI") == "true":
        return pytest.fail.Exception(what, pytrace=False)
    return pytest.skip.Exception(what)


def problems_of_workflow(path: Path) -> str:
    """The output of the schema's check, actionlint and zizmor. None of them needs a network."""
    schema = ["check-jsonschema", "--quiet", "--builtin-schema", "vendor.github-workflows"]
    return said([*schema, path]) + said(["actionlint", path]) + said(["zizmor", *OFFLINE, path])


def said(command: list[str | Path], cwd: Path = ROOT) -> str:
    """The output of a tool of this environment, if it found something."""
    program = Path(sys.executable).with_name(str(command[0]))
    done = subprocess.run([program, *command[1:]], cwd=cwd, text=True, capture_output=True)
    return (done.stdout + done.stderr or f"{program}: {done.returncode}") if done.returncode else ""


def untested(page: str) -> list[str]:
    """The tests that the page names and that don't exist."""
    links = LINK.findall(page)
    return [test for test, path in links if f"def {test}(" not in (ROOT / path).read_text()]


def imports_of_tests(files: Mapping[str, str]) -> list[str]:
    """The imports from modules of tests. What two of them need has a module of its own."""
    found = [(name, A_TEST.search(text)) for name, text in files.items() if name.endswith(".py")]
    return [f"{name}: {match[0].strip()}" for name, match in found if match]
