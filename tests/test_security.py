"""Each promise of docs/security.md has a test that exists."""

import re

from tests.renders import ROOT

LINK = re.compile(r"\[`(\w+)`\]\(<?\.\./((?:template/)?tests/[^)>]+)>?\)")
TABLE = re.compile(r"^\| what .*test \|\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)


def test_each_row_has_a_test_that_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = [row for table in TABLE.findall(page) for row in table.splitlines()]
    assert len(rows) > 15
    assert [row for row in rows if not LINK.search(row)] == []
    links = LINK.findall(page)
    assert [test for test, path in links if f"def {test}(" not in (ROOT / path).read_text()] == []
