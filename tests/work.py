"""A user's work in a service: files of their own, and lines in the template's files."""

import re
from dataclasses import dataclass
from pathlib import Path

FILES = {
    "app/models/customer.py": """\
from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import Base


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(200))
    greeting: Mapped[str | None] = mapped_column(String(200))
""",
    "app/tasks/customers.py": '''\
"""What happens to a customer who is new here."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.jobs import NonRetryable, task
from app.models import Customer


@task(queue="default", tries=3)
async def greet(db: AsyncSession, customer_id: UUID) -> str:
    customer = await db.get(Customer, customer_id)
    if customer is None:
        raise NonRetryable(f"customer {customer_id} is gone")
    customer.greeting = f"{get_settings().greeting}, {customer.name}"
    return customer.greeting
''',
    "app/services/customers.py": '''\
"""Customers, and the job that greets each new one."""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Jobs
from app.models import Customer
from app.tasks.customers import greet


class CustomerService:
    def __init__(self, session: AsyncSession, jobs: Jobs) -> None:
        self._session = session
        self._jobs = jobs

    async def create(self, name: str) -> str:
        """Returns the id of the job."""
        customer = Customer(id=uuid4(), name=name)
        self._session.add(customer)
        job = await self._jobs.submit(greet, customer.id)
        await self._session.commit()
        return str(job.id)
''',
    "app/api/customers.py": '''\
"""Customers."""

from __future__ import annotations

from fastapi import APIRouter

from app.dependencies import CustomerServiceDep
from app.schemas.response import ApiResponse

router = APIRouter(tags=["customers"])


@router.post("/customers/{name}", status_code=201)
async def create(name: str, customers: CustomerServiceDep) -> ApiResponse[str]:
    return ApiResponse(data=await customers.create(name))
''',
    "migrations/versions/0002_customers.py": '''\
"""Customers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "own_0001"
down_revision = "app_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("greeting", sa.String(200)),
    )


def downgrade() -> None:
    op.drop_table("customers")
''',
    "tests/test_customers.py": """\
from __future__ import annotations

from tests.service import Service


async def test_a_new_customer_is_greeted(service: Service) -> None:
    answer = await service.client.post("/customers/Ada")
    assert answer.status_code == 201
    job = await service.job_is(answer.json()["data"], "succeeded")
    assert job["result"] == "Welcome, Ada"
""",
}


@dataclass(frozen=True)
class Edit:
    """Lines for a file: after the line that begins with `after`, or before that with `before`."""

    path: str
    lines: str
    after: str = ""
    before: str = ""

    def apply(self, folder: Path) -> None:
        path = folder / self.path
        text = path.read_text("utf-8")
        found = list(
            re.finditer(f"^{re.escape(self.after or self.before)}.*\n", text, re.MULTILINE)
        )
        assert len(found) == 1, f"{self.path} has {len(found)} lines {self.after or self.before}"
        at = found[0].end() if self.after else found[0].start()
        path.write_text(text[:at] + self.lines + text[at:], "utf-8")

    def undo(self, text: str) -> str:
        """The text without these lines, which it must contain once."""
        assert text.count(self.lines) == 1, f"{self.path} has lost {self.lines}"
        return text.replace(self.lines, "")


PROVIDER = """

async def get_customer_service(session: DBSession, jobs: JobsDep) -> CustomerService:
    return CustomerService(session, jobs)


CustomerServiceDep = Annotated[CustomerService, Depends(get_customer_service)]
"""
COMPOSE = """
  mail:
    image: axllent/mailpit
    restart: unless-stopped
"""
README = "## Customers\n\nEach new one is greeted.\n\n"
EDITS = (
    Edit(
        "app/models/__init__.py",
        "from app.models.customer import Customer\n",
        "from app.core.database",
    ),
    Edit("app/models/__init__.py", '__all__ += ["Customer"]\n', "__all__ = "),
    Edit(
        "app/dependencies.py",
        "from app.services.customers import CustomerService\n",
        before="from app.services.orders",
    ),
    Edit("app/dependencies.py", PROVIDER, "OPERATORS = "),
    Edit("app/config.py", '    greeting: str = "Welcome"\n', "    environment: "),
    Edit("app/tasks/orders.py", "    # Shipped by hand.\n", '    order.status = "processed"'),
    Edit(
        "tests/api/test_orders.py",
        "    assert answer.headers['content-type'] == 'application/json'\n".replace("'", '"'),
        "    assert answer.status_code == 201",
    ),
)
# The place of a line depends on the release: only after 0.2.0 files have places for a user's own.
PLACES = (
    Edit("README.md", README, before="## Operating it"),
    Edit(".env.example", "\n# GREETING=Welcome\n", "# POSTGRES_PASSWORD="),
    Edit("compose.yaml", COMPOSE, "  # Services of your own"),
    Edit("compose.yaml", "  GREETING:\n", "  PUSH_TIMEOUT:"),
    Edit("pyproject.toml", '    "markupsafe>=3,<4",\n', '    "structlog'),
)
BEFORE_PLACES = (
    Edit("compose.yaml", COMPOSE[1:] + "\n", before="  migrate:"),
    Edit("pyproject.toml", '    "markupsafe>=3,<4",\n', before='    "psycopg'),
    Edit("app/main.py", "    api.include_router(customers.router)\n", before="    return api"),
)
OF_RELEASES = {
    "v0.1.0": (
        *BEFORE_PLACES,
        Edit("README.md", "Each new customer is greeted.\n\n", before="```mermaid"),
        Edit(".env.example", "# GREETING=Welcome\n", "# LOG_JSON="),
        Edit("compose.yaml", "    GREETING: Welcome\n", "    LOG_JSON:"),
        Edit("app/main.py", "    customers,\n", before="    health,"),
    ),
    "v0.2.0": (
        *BEFORE_PLACES,
        Edit("README.md", "Each new customer is greeted.\n\n", before="SQLite, the default"),
        Edit(".env.example", "\n# GREETING=Welcome\n", "# TRUSTED_URLS="),
        Edit("compose.yaml", "  GREETING:\n", "  LEASE:"),
        Edit("app/main.py", "    customers,\n", before="    errors,"),
    ),
}
# A test of the engine that both of these releases have at this path, and no later one.
GONE = Edit("tests/jobs/test_contract.py", "# Ours, too.\n", before="from __future__")


def edits(version: str = "") -> list[Edit]:
    """The edits for a release, or without a version for the working tree."""
    return [*EDITS, *OF_RELEASES.get(version, PLACES)]


def work(folder: Path, version: str = "") -> None:
    """Write the user's files, and edit the template's."""
    for name, text in FILES.items():
        (folder / name).write_text(text, "utf-8")
    for edit in edits(version):
        edit.apply(folder)
    if version in OF_RELEASES:
        GONE.apply(folder)
