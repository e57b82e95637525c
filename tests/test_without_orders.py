"""A user removes the orders, as docs/updating.md says, and adds a back end afterwards."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.renders import ROOT
from tests.services import Service

UPGRADE = 'def upgrade() -> None:\n    op.drop_table("orders")'
# What the page names in words: each pattern is removed where it is found in these files.
LINES = {
    "app/models/__init__.py": [r"from app.models.order import Order\n", r'"Order", '],
    "app/dependencies.py": [
        r"from app.services.orders import OrderService\n",
        r"async def get_order_service(.|\n)*?\n\n\n",
        r"OrderServiceDep = .*\n\n\n",
    ],
    "app/api/errors.py": [
        r"from app.services.orders .*\n",
        r"    OrderNotFoundError: .*\n",
        r"    api.add_exception_handler\(IdempotencyConflictError, .*\n",
        r"async def _other_body(.|\n)*?\n\n\n",
    ],
    "app/tasks/maintenance.py": [
        r"Order, ",
        r"@task\(.*\)\ndef generate_daily_report(.|\n)*?\n\n\n",
    ],
    "app/tasks/schedules.py": [
        r'    Schedule\(\n        "daily_report"(.|\n)*?    \),\n',
        r"    generate_daily_report,\n",
    ],
    "tests/tasks/test_maintenance.py": [
        r"Order, ",
        r"    generate_daily_report,\n",
        r"def test_the_report_counts(.|\n)*?\n\n\n",
    ],
}


def commands() -> list[str]:
    """The commands of the page's section."""
    section = (ROOT / "docs" / "updating.md").read_text("utf-8").split("## Without the orders")[1]
    blocks = re.findall(r"```sh\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace(",\n", ",").splitlines()]
    return [line for line in lines if line]


@pytest.mark.slow
def test_the_orders_can_be_removed(template: Path, tmp_path: Path) -> None:
    service = Service(template, tmp_path / "it").render({"backends": ["celery"]}).committed()
    *steps, update = commands()
    for step in steps[:-1]:
        service.git(*shlex.split(step)[1:])
    for name, patterns in LINES.items():
        text = service.read(name)
        for pattern in patterns:
            text, count = re.subn(pattern, "", text)
            assert count == 1, pattern
        (service.folder / name).write_text(text, "utf-8")
    service.run(steps[-1])
    [revision] = service.git("ls-files", "-o", "--exclude-standard", "migrations")
    service.replace(revision, "def upgrade() -> None:\n    pass", UPGRADE)
    service.run("uv run poe lint")
    own = yaml.safe_load(shlex.split(update)[-1].removeprefix("own_files="))
    service.committed().update(own_files=own)
    assert service.git("status", "--porcelain") == [" M .copier-answers.yml"]
    service.committed().update(backends=["arq"])
    service.committed().update(backends=["arq", "celery"])
    assert service.unmerged() == []
    assert [name for name in own if (service.folder / name).exists()] == []
    service.run("uv run poe lint")
    service.run("uv run poe test")
